/* Convolutions of 3x3, stride 1 and padding 1, by Winograd's minimal filtering: of a tile of m x m
 * outputs (m + 2)^2 products instead of 9 m^2.
 *
 * Lavin & Gray 2015, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308; the
 * points are 0, 1, -1, 2, infinity for m = 3, and -2 as well for m = 4.
 * `service.kernels.winograd` packs weights and calls this.
 */

#include <string.h>

#include "products.h"

#define TILES 12   /* taken at once: what lies between the transforms then fits a core's own cache */
#define APART 16   /* floats between planes, which would all meet in the same lines of the cache */

/* One dimension of a tile, `d` and `v` being `s` and `o` apart, to where products are taken. */
INLINE void enter4(const vec *d, int s, vec *v, int o) {
    vec d1 = d[s], d2 = d[2 * s], d3 = d[3 * s], d4 = d[4 * s];
    vec a = d4 - 4 * d2, b = d3 - 4 * d1, c = d4 - d2, e = 2 * (d3 - d1);
    v[0] = 4 * d[0] - 5 * d2 + d4;
    v[o] = a + b;
    v[2 * o] = a - b;
    v[3 * o] = c + e;
    v[4 * o] = c - e;
    v[5 * o] = 4 * d1 - 5 * d3 + d[5 * s];
}

INLINE void enter3(const vec *d, int s, vec *v, int o) {
    vec d1 = d[s], d2 = d[2 * s], d3 = d[3 * s];
    v[0] = 2 * d[0] - d1 - 2 * d2 + d3;
    v[o] = d3 - 2 * d1 - d2;
    v[2 * o] = 2 * d1 - 3 * d2 + d3;
    v[3 * o] = d3 - d1;
    v[4 * o] = 2 * d1 - d2 - 2 * d3 + d[4 * s];
}

/* And back. */
INLINE void leave4(const vec *p, int s, vec *y, int o) {
    vec a = p[s] + p[2 * s], b = p[s] - p[2 * s], c = p[3 * s] + p[4 * s], e = p[3 * s] - p[4 * s];
    y[0] = p[0] + a + c;
    y[o] = b + 2 * e;
    y[2 * o] = a + 4 * c;
    y[3 * o] = b + 8 * e + p[5 * s];
}

INLINE void leave3(const vec *p, int s, vec *y, int o) {
    vec a = p[s] + p[2 * s], b = p[s] - p[2 * s];
    y[0] = p[0] + a + p[3 * s];
    y[o] = b + 2 * p[3 * s];
    y[2 * o] = a + 4 * p[3 * s] + p[4 * s];
}

INLINE void convolve(int m, const float *in, const float *weight, const float *bias, float *out,
                     float *scratch, long faces, long height, long width, long before, long after,
                     enum activation activation) {
    const int edge = m + 2, planes = edge * edge;
    const long down = (height + m - 1) / m, across = (width + m - 1) / m;
    const long tiles = faces * down * across;
    const long plane_in = TILES * before + APART, plane_out = TILES * after + APART;
    float *entered = scratch, *multiplied = entered + planes * plane_in;
    float *outside = multiplied + planes * plane_out;
    memset(outside, 0, before * sizeof(float));

    for (long first = 0; first < tiles; first += TILES) {
        const long count = tiles - first < TILES ? tiles - first : TILES;

        for (long t = 0; t < count; t++) {
            const long tile = first + t, face = tile / (down * across);
            const long top = tile / across % down * m - 1, left = tile % across * m - 1;
            const float *pixels[36];
            for (int i = 0; i < planes; i++) {
                const long y = top + i / edge, x = left + i % edge;
                const int inside = y >= 0 && y < height && x >= 0 && x < width;
                pixels[i] = inside ? in + ((face * height + y) * width + x) * before : outside;
            }
            for (long c = 0; c < before; c += LANES) {
                vec a[36], b[36];
                for (int i = 0; i < planes; i++) a[i] = load(pixels[i] + c);
                for (int i = 0; i < edge; i++)
                    m == 4 ? enter4(a + i, edge, b + i, edge) : enter3(a + i, edge, b + i, edge);
                for (int i = 0; i < planes; i += edge)
                    m == 4 ? enter4(b + i, 1, a + i, 1) : enter3(b + i, 1, a + i, 1);
                float *to = entered + t * before + c;
                for (int i = 0; i < planes; i++) store(to + i * plane_in, a[i]);
            }
        }

        for (int i = 0; i < planes; i++)
            for (long c = 0; c < after; c += PANEL)
                products(count, entered + i * plane_in, weight + (i * after + c) * before,
                         multiplied + i * plane_out + c, before, after);

        for (long t = 0; t < count; t++) {
            const long tile = first + t, face = tile / (down * across);
            const long top = tile / across % down * m, left = tile % across * m;
            float *to = out + ((face * height + top) * width + left) * after;
            for (long c = 0; c < after; c += LANES) {
                vec a[36], b[24], y[16];
                const float *from = multiplied + t * after + c;
                for (int i = 0; i < planes; i++) a[i] = load(from + i * plane_out);
                for (int i = 0; i < edge; i++)
                    m == 4 ? leave4(a + i, edge, b + i, edge) : leave3(a + i, edge, b + i, edge);
                for (int i = 0; i < m; i++)
                    m == 4 ? leave4(b + i * edge, 1, y + i * m, 1)
                           : leave3(b + i * edge, 1, y + i * m, 1);
                for (int i = 0; i < m * m; i++) {
                    const long down_by = i / m, right_by = i % m;
                    if (top + down_by >= height || left + right_by >= width) continue;
                    store(to + (down_by * width + right_by) * after + c,
                          activate(activation, y[i] + load(bias + c)));
                }
            }
        }
    }
}

/* How many floats `winograd` needs to work in. */
long winograd_scratch(int m, long before, long after) {
    return (m + 2) * (m + 2) * (TILES * (before + after) + 2 * APART) + before;
}

void winograd(int m, const float *in, const float *weight, const float *bias, float *out,
              float *scratch, long faces, long height, long width, long before, long after,
              int activation) {
    if (m == 4)
        convolve(4, in, weight, bias, out, scratch, faces, height, width, before, after, activation);
    else
        convolve(3, in, weight, bias, out, scratch, faces, height, width, before, after, activation);
}
