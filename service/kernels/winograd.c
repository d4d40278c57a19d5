/* Convolutions with 3x3 kernels, stride 1 and padding 1, by Winograd's minimal filtering. A tile of
 * m x m outputs takes (m + 2)^2 products for each pair of channels, instead of 9 m^2.
 *
 * Lavin & Gray 2015, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308. Pixels
 * and kernels are evaluated at m + 2 points in each dimension, multiplied there, and transformed
 * back. The points are 0, 1, -1 and infinity for m = 2; 2 is added for m = 3, and -2 for m = 4.
 * Each pair of points has its own plane of weights. A plane does not depend on m, so the weights of
 * the largest tile also serve smaller tiles. `service.kernels.winograd` packs the weights and calls
 * this.
 */

#include <limits.h>
#include <string.h>

#include "products.h"

/* Tiles computed together. Their values at the points then fit a core's own cache. */
#define TILES 12
/* Floats between planes. Without them all planes would compete for the same lines of the cache. */
#define APART 16
/* To read a plane's weights from memory takes as long as the products of so many tiles. */
#define READING 10

struct sizes {
    long height, width, before, after; /* before and after: channels of input and output */
    long down, across;                 /* tiles of a face */
    long plane_in, plane_out;          /* floats from one plane to the next */
};

/* Where a tile's outputs begin. */
struct place {
    long face, top, left;
};

INLINE struct place place_of(int m, long tile, const struct sizes *s) {
    return (struct place){tile / (s->down * s->across), tile / s->across % s->down * m,
                          tile % s->across * m};
}

/* Evaluates one dimension of a tile at its points: pixels `from` apart, values `to` apart. */
INLINE void evaluate(int m, const vec *d, int from, vec *v, int to) {
    vec d0 = d[0], d1 = d[from], d2 = d[2 * from], d3 = d[3 * from];
    if (m == 2) {
        v[0] = 4 * (d0 - d2);
        v[to] = -3 * (d1 + d2);
        v[2 * to] = 3 * (d1 - d2);
        v[3 * to] = d3 - d1;
    } else if (m == 3) {
        v[0] = 4 * (d0 - d2) + 2 * (d3 - d1);
        v[to] = 3 * (d3 - d2) - 6 * d1;
        v[2 * to] = 2 * d1 - 3 * d2 + d3;
        v[3 * to] = 2 * d1 - d2 - 2 * d3 + d[4 * from];
        v[4 * to] = 4 * (d3 - d1);
    } else {
        vec d4 = d[4 * from], a = d4 - 4 * d2, b = d3 - 4 * d1, c = d4 - d2, e = 2 * (d3 - d1);
        v[0] = 4 * d0 - 5 * d2 + d4;
        v[to] = a + b;
        v[2 * to] = a - b;
        v[3 * to] = 4 * d1 - 5 * d3 + d[5 * from];
        v[4 * to] = c + e;
        v[5 * to] = c - e;
    }
}

/* Transforms one dimension of a tile back: products `from` apart, outputs `to` apart. */
INLINE void interpolate(int m, const vec *p, int from, vec *y, int to) {
    vec a = p[from] + p[2 * from], b = p[from] - p[2 * from], infinity = p[3 * from];
    if (m == 2) {
        y[0] = p[0] + a;
        y[to] = b + infinity;
    } else if (m == 3) {
        vec c = p[4 * from];
        y[0] = p[0] + a + c;
        y[to] = b + 2 * c;
        y[2 * to] = a + 4 * c + infinity;
    } else {
        vec c = p[4 * from] + p[5 * from], e = p[4 * from] - p[5 * from];
        y[0] = p[0] + a + c;
        y[to] = b + 2 * e;
        y[2 * to] = a + 4 * c;
        y[3 * to] = b + 8 * e + infinity;
    }
}

/* Evaluates one tile in both dimensions. `zeros` stand for the pixels outside the image. */
INLINE void evaluate_tile(int m, const float *in, const float *zeros, float *values,
                          struct place at, const struct sizes *s) {
    const int edge = m + 2, planes = edge * edge;
    const float *pixels[36];
    for (int i = 0; i < planes; i++) {
        const long y = at.top - 1 + i / edge, x = at.left - 1 + i % edge;
        const int inside = y >= 0 && y < s->height && x >= 0 && x < s->width;
        pixels[i] = inside ? in + ((at.face * s->height + y) * s->width + x) * s->before : zeros;
    }
    for (long c = 0; c < s->before; c += LANES) {
        vec a[36], b[36];
        for (int i = 0; i < planes; i++) a[i] = load(pixels[i] + c);
        for (int i = 0; i < edge; i++) evaluate(m, a + i, edge, b + i, edge);
        for (int i = 0; i < planes; i += edge) evaluate(m, b + i, 1, a + i, 1);
        for (int i = 0; i < planes; i++) store(values + i * s->plane_in + c, a[i]);
    }
}

/* Transforms one tile back, adds the bias and writes the outputs that lie on the image. */
INLINE void interpolate_tile(int m, const float *multiplied, const float *bias, float *out,
                             struct place at, const struct sizes *s, enum activation activation) {
    const int edge = m + 2, planes = edge * edge;
    float *to = out + ((at.face * s->height + at.top) * s->width + at.left) * s->after;
    for (long c = 0; c < s->after; c += LANES) {
        vec a[36], b[24], y[16];
        for (int i = 0; i < planes; i++) a[i] = load(multiplied + i * s->plane_out + c);
        for (int i = 0; i < edge; i++) interpolate(m, a + i, edge, b + i, edge);
        for (int i = 0; i < m; i++) interpolate(m, b + i * edge, 1, y + i * m, 1);
        for (int i = 0; i < m * m; i++) {
            const long row = i / m, column = i % m;
            if (at.top + row >= s->height || at.left + column >= s->width) continue;
            store(to + (row * s->width + column) * s->after + c,
                  activate(activation, y[i] + load(bias + c)));
        }
    }
}

INLINE void convolve(int m, int largest, const float *in, const float *weight, const float *bias,
                     float *out, float *scratch, long faces, long height, long width, long before,
                     long after, enum activation activation) {
    const int edge = m + 2, planes = edge * edge;
    const struct sizes s = {height, width, before, after, (height + m - 1) / m,
                            (width + m - 1) / m, TILES * before + APART, TILES * after + APART};
    const long tiles = faces * s.down * s.across;
    float *values = scratch, *multiplied = values + planes * s.plane_in;
    float *zeros = multiplied + planes * s.plane_out;
    memset(zeros, 0, before * sizeof(float));

    for (long first = 0; first < tiles; first += TILES) {
        const long count = tiles - first < TILES ? tiles - first : TILES;
        for (long t = 0; t < count; t++)
            evaluate_tile(m, in, zeros, values + t * before, place_of(m, first + t, &s), &s);
        for (int i = 0; i < planes; i++) {
            const float *plane = weight + (i / edge * (largest + 2) + i % edge) * before * after;
            for (long c = 0; c < after; c += PANEL)
                products(count, values + i * s.plane_in, plane + c * before,
                         multiplied + i * s.plane_out + c, before, after);
        }
        for (long t = 0; t < count; t++)
            interpolate_tile(m, multiplied + t * after, bias, out, place_of(m, first + t, &s), &s,
                             activation);
    }
}

/* The tile that takes least time, of at most `largest` outputs a side. A single face has few tiles,
 * so that reading the weights takes most of the time; a small tile needs fewer weights. */
static int choose_tile(int largest, long faces, long height, long width) {
    int best = largest;
    long least = LONG_MAX;
    for (int m = largest; m >= 2; m--) {
        const long tiles = faces * ((height + m - 1) / m) * ((width + m - 1) / m);
        const long cost = (m + 2) * (m + 2) * (tiles < READING ? READING : tiles);
        if (cost < least) best = m, least = cost;
    }
    return best;
}

/* How many floats of scratch memory `winograd` needs. */
long winograd_scratch(int largest, long before, long after) {
    return (largest + 2) * (largest + 2) * (TILES * (before + after) + 2 * APART) + before;
}

/* Convolves float[faces][height][width][before] to float[faces][height][width][after]. `weight` is
 * float[largest + 2][largest + 2][after / PANEL][before][PANEL], a plane for each pair of points;
 * `largest` is 3 or 4. */
void winograd(int largest, const float *in, const float *weight, const float *bias, float *out,
              float *scratch, long faces, long height, long width, long before, long after,
              int activation) {
#define CONVOLVE(m) \
    convolve(m, largest, in, weight, bias, out, scratch, faces, height, width, before, after, \
             activation)
    switch (choose_tile(largest, faces, height, width)) {
        case 2: CONVOLVE(2); break;
        case 3: CONVOLVE(3); break;
        default: CONVOLVE(4);
    }
}
