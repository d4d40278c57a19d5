/* The end of a spatial transformer: each image, sampled where its parameters say.
 *
 * Jaderberg et al. 2015, "Spatial Transformer Networks", arXiv:1506.02025, as
 * `training.model.stn` computes it. `service.kernels.sampling` calls this.
 */

#include <math.h>

#include "lanes.h"

/* The sampling matrix, float[2][3], of one image. */
static void find_theta(const float *parameters, const float *bounds, float *theta) {
    if (!bounds) { /* affine: the difference from the identity */
        for (int i = 0; i < 6; i++) theta[i] = parameters[i] + (i % 4 == 0);
        return;
    }
    const float scale = expf(tanhf(parameters[0]) * bounds[0]);
    const float angle = tanhf(parameters[1]) * bounds[1];
    theta[0] = theta[4] = scale * cosf(angle);
    theta[3] = scale * sinf(angle);
    theta[1] = -theta[3];
    theta[2] = tanhf(parameters[2]) * bounds[2];
    theta[5] = tanhf(parameters[3]) * bounds[2];
}

/* A coordinate in pixels, moved onto the image. NaN becomes 0, so that no read is outside. */
INLINE float clip(float value, float most) {
    value = value > 0 ? value : 0;
    return value < most ? value : most;
}

/* Samples one row of an image. Without `restrict`, and with longer indices than int, the compiler
 * does not use vectors here. */
INLINE void sample_row(const float *in, const float *theta, float *restrict out, int row,
                       int height, int width) {
    /* From -1 to 1 between the outer edges of the image. */
    const float v = (2 * row + 1) / (float)height - 1;
    for (int column = 0; column < width; column++) {
        const float u = (2 * column + 1) / (float)width - 1;
        float x = ((theta[0] * u + theta[1] * v + theta[2] + 1) * width - 1) / 2;
        float y = ((theta[3] * u + theta[4] * v + theta[5] + 1) * height - 1) / 2;
        x = clip(x, width - 1), y = clip(y, height - 1);
        const int left = x, right = left + 1 < width ? left + 1 : left;
        const int top = y, above = top * width;
        const int below = top + 1 < height ? above + width : above;
        const float across = x - left, down = y - top;
        const float upper = in[above + left] + across * (in[above + right] - in[above + left]);
        const float lower = in[below + left] + across * (in[below + right] - in[below + left]);
        out[column] = upper + down * (lower - upper);
    }
}

/* `in` and `out` are float[faces][height][width]. `parameters` are float[faces][4] and `bounds` are
 * the largest log scale, angle in radians and shift; without bounds, `parameters` are
 * float[faces][6]. */
void sample(const float *in, const float *parameters, const float *bounds, float *out, long faces,
            long height, long width) {
    for (long face = 0; face < faces; face++, in += height * width) {
        float theta[6];
        find_theta(parameters + face * (bounds ? 4 : 6), bounds, theta);
        for (long row = 0; row < height; row++, out += width)
            sample_row(in, theta, out, row, height, width);
    }
}
