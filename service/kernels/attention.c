/* The end of a block in one function: channel attention, spatial attention, the sum with the
 * shortcut and the activation.
 *
 * Woo et al. 2018, "CBAM: Convolutional Block Attention Module", arXiv:1807.06521, as
 * `training.model.attention` computes it. `service.kernels.attention` packs weights and calls this.
 */

#include <math.h>
#include <string.h>

#include "lanes.h"

#define KERNEL 7
#define REACH (KERNEL / 2)

INLINE float sigmoid(float x) { return 1 / (1 + expf(-x)); }

INLINE long lanes_of(long floats) { return (floats + LANES - 1) / LANES * LANES; }

/* Computes the weight of each channel, float[channels]. `first` is float[channels][hidden] and
 * `last` is float[hidden][channels]; both sizes are multiples of LANES. `last_bias` is twice the
 * layer's bias, because the network applies the layer to two descriptors. */
static void weigh_channels(const float *in, float *weights, long places, long channels, long hidden,
                           const float *first, const float *first_bias, const float *last,
                           const float *last_bias, enum activation activation, float *scratch) {
    float *mean = scratch, *maximum = mean + channels, *sum = maximum + channels;
    for (long c = 0; c < channels; c += LANES) {
        vec total = load(in + c), highest = total;
        for (long p = 1; p < places; p++) {
            vec value = load(in + p * channels + c);
            total += value;
            highest = larger(highest, value);
        }
        store(mean + c, total / (float)places);
        store(maximum + c, highest);
    }
    for (long h = 0; h < hidden; h += LANES) {
        vec of_mean = load(first_bias + h), of_maximum = of_mean;
        for (long c = 0; c < channels; c++) {
            vec weight = load(first + c * hidden + h);
            of_mean += mean[c] * weight;
            of_maximum += maximum[c] * weight;
        }
        /* The last layer is linear, so it is applied once, to the sum. */
        store(sum + h, activate(activation, of_mean) + activate(activation, of_maximum));
    }
    for (long c = 0; c < channels; c += LANES) {
        vec total = load(last_bias + c);
        for (long h = 0; h < hidden; h++) total += sum[h] * load(last + h * channels + c);
        store(weights + c, total);
    }
    for (long c = 0; c < channels; c++) weights[c] = sigmoid(weights[c]);
}

/* Computes the weight of each place, `gate`, float[height][lanes_of(width)]. `maps` receives the
 * mean and the maximum over channels; its margin, as wide as the kernel reaches, must be zero. */
static void weigh_places(const float *in, const float *weights, float *gate, long height,
                         long width, long channels, const float *kernel, float bias, float *maps) {
    const long row = lanes_of(width), wide = row + KERNEL - 1, map = (height + KERNEL - 1) * wide;
    for (long y = 0; y < height; y++)
        for (long x = 0; x < width; x++, in += channels) {
            vec total = all(0), highest = all(-INFINITY);
            for (long c = 0; c < channels; c += LANES) {
                vec value = load(in + c) * load(weights + c);
                total += value;
                highest = larger(highest, value);
            }
            float *here = maps + (y + REACH) * wide + x + REACH;
            here[0] = sum_of(total) / (float)channels;
            here[map] = largest_of(highest);
        }
    for (long y = 0; y < height; y++)
        for (long x = 0; x < row; x += LANES) {
            vec total = all(bias);
            for (long i = 0; i < 2 * KERNEL; i++) {
                const float *from = maps + i / KERNEL * map + (y + i % KERNEL) * wide + x;
                for (long j = 0; j < KERNEL; j++)
                    total += kernel[i * KERNEL + j] * load(from + j);
            }
            store(gate + y * row + x, total);
        }
    for (long i = 0; i < height * row; i++) gate[i] = sigmoid(gate[i]);
}

/* How many floats of scratch memory `attend` needs. */
long attend_scratch(long height, long width, long channels, long hidden) {
    const long row = lanes_of(width);
    return 3 * channels + hidden + height * row + 2 * (height + KERNEL - 1) * (row + KERNEL - 1);
}

/* All features are float[faces][height][width][channels]. Without `first` there is no channel
 * attention, without `kernel` no spatial attention. */
void attend(const float *in, const float *shortcut, float *out, float *scratch, long faces,
            long height, long width, long channels, long hidden, const float *first,
            const float *first_bias, const float *last, const float *last_bias,
            const float *kernel, float bias, int activation) {
    const long places = height * width, row = lanes_of(width);
    float *weights = scratch, *gate = weights + channels, *maps = gate + height * row;
    float *descriptors = maps + 2 * (height + KERNEL - 1) * (row + KERNEL - 1);
    memset(maps, 0, (descriptors - maps) * sizeof(float));
    for (long c = 0; c < channels; c++) weights[c] = 1;
    for (long i = 0; i < height * row; i++) gate[i] = 1;
    for (long face = 0; face < faces; face++, in += places * channels) {
        if (first)
            weigh_channels(in, weights, places, channels, hidden, first, first_bias, last,
                           last_bias, activation, descriptors);
        if (kernel)
            weigh_places(in, weights, gate, height, width, channels, kernel, bias, maps);
        const float *from = in;
        for (long y = 0; y < height; y++)
            for (long x = 0; x < width; x++)
                for (long c = 0; c < channels; c += LANES) {
                    vec value = load(from) * load(weights + c) * gate[y * row + x];
                    store(out, activate(activation, load(shortcut) + value));
                    from += LANES, shortcut += LANES, out += LANES;
                }
    }
}
