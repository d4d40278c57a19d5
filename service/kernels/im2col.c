/* Convolutions of any kernel size and stride. The inputs of each output are copied to one row of a
 * matrix, and the matrix is multiplied by the weights. `service.kernels.im2col` packs weights and
 * calls this.
 */

#include <string.h>

#include "products.h"

/* Read by Python, which packs the weights. */
const int lanes = LANES;

/* Outputs computed together. More than ROWS, so that weights are read less often. */
#define PLACES 24

INLINE long panels_of(long channels) { return (channels + PANEL - 1) / PANEL * PANEL; }

/* How many floats of scratch memory `im2col` needs. */
long im2col_scratch(long kernel, long before, long after) {
    return PLACES * (kernel * kernel * before + panels_of(after));
}

INLINE long between(long least, long value, long most) {
    return value < least ? least : value > most ? most : value;
}

/* Copies [begin, end) and writes zeros to the rest of [0, size). It calls neither memcpy nor memset:
 * with few channels a row is so short that the calls would take longer. */
INLINE void copy(float *to, const float *from, long begin, long end, long size) {
    for (long i = 0; i < begin; i++) to[i] = 0;
    for (long i = begin; i < end; i++) to[i] = from[i];
    for (long i = end; i < size; i++) to[i] = 0;
}

/* Convolves float[faces][height][width][before] to float[faces][down][across][after]. `weight` is
 * float[panels][kernel * kernel * before][PANEL]; the last panel is filled with zeros. */
void im2col(const float *in, const float *weight, const float *bias, float *out, float *scratch,
            long faces, long height, long width, long before, long after, long kernel, long stride,
            long padding, int activation) {
    const long down = (height + 2 * padding - kernel) / stride + 1;
    const long across = (width + 2 * padding - kernel) / stride + 1;
    const long places = faces * down * across, depth = kernel * kernel * before;
    const long wide = panels_of(after);
    float *seen = scratch, *multiplied = seen + PLACES * depth;

    for (long first = 0; first < places; first += PLACES) {
        const long count = places - first < PLACES ? places - first : PLACES;
        float *to = seen;
        for (long p = first; p < first + count; p++) {
            const long face = p / (down * across);
            const long top = p / across % down * stride - padding;
            const long left = p % across * stride - padding;
            /* Columns of the kernel that lie on the image. */
            const long begin = between(0, -left, kernel), end = between(begin, width - left, kernel);
            for (long y = top; y < top + kernel; y++, to += kernel * before) {
                const int beside = y < 0 || y >= height;
                const float *row = in + ((face * height + y) * width + left) * before;
                copy(to, row, begin * before, (beside ? begin : end) * before, kernel * before);
            }
        }
        for (long c = 0; c < wide; c += PANEL)
            products(count, seen, weight + c * depth, multiplied + c, depth, wide);
        for (long p = 0; p < count; p++)
            for (long c = 0; c < after; c += LANES, out += LANES)
                store(out, activate(activation, load(multiplied + p * wide + c) + load(bias + c)));
    }
}
