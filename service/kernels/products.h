/* Matrix products for the convolutions. The right matrix, the weights, is packed in panels. */

#include "lanes.h"

/* Output channels in a panel: the weights of one depth are two vectors. */
#define PANEL (2 * LANES)
/* Rows computed together. Each needs two registers for its sums; this many fit. */
#define ROWS (LANES == 16 ? 12 : 6)
/* Cache lines between the weights in use and those fetched: large weights come from memory. */
#define AHEAD 128

/* to[rows][PANEL] = from[rows][depth] weight[depth][PANEL], for at most ROWS rows. Rows of `to` are
 * `stride` floats apart. */
INLINE void product(int rows, const float *from, const float *weight, float *to, long depth,
                    long stride) {
    vec sum[ROWS][2];
    for (int r = 0; r < rows; r++) sum[r][0] = sum[r][1] = all(0);
    for (long i = 0; i < depth; i++, weight += PANEL) {
        for (int line = 0; line < PANEL; line += 16)
            _mm_prefetch((const char *)(weight + AHEAD * 16 + line), _MM_HINT_T0);
        vec left = load(weight), right = load(weight + LANES);
        for (int r = 0; r < rows; r++) {
            vec value = all(from[r * depth + i]);
            sum[r][0] += value * left;
            sum[r][1] += value * right;
        }
    }
    for (int r = 0; r < rows; r++) {
        store(to + r * stride, sum[r][0]);
        store(to + r * stride + LANES, sum[r][1]);
    }
}

/* The same for any number of rows, in groups of nearly equal size. The compiler keeps the sums in
 * registers only if it knows the number of rows, so each number has its case. */
INLINE void products(long rows, const float *from, const float *weight, float *to, long depth,
                     long stride) {
    for (long groups = (rows + ROWS - 1) / ROWS; groups > 0; groups--) {
        long some = (rows + groups - 1) / groups;
        switch (some) {
            case 1: product(1, from, weight, to, depth, stride); break;
            case 2: product(2, from, weight, to, depth, stride); break;
            case 3: product(3, from, weight, to, depth, stride); break;
            case 4: product(4, from, weight, to, depth, stride); break;
            case 5: product(5, from, weight, to, depth, stride); break;
            case 6: product(6, from, weight, to, depth, stride); break;
#if LANES == 16
            case 7: product(7, from, weight, to, depth, stride); break;
            case 8: product(8, from, weight, to, depth, stride); break;
            case 9: product(9, from, weight, to, depth, stride); break;
            case 10: product(10, from, weight, to, depth, stride); break;
            case 11: product(11, from, weight, to, depth, stride); break;
            case 12: product(12, from, weight, to, depth, stride); break;
#endif
        }
        rows -= some;
        from += some * depth;
        to += some * stride;
    }
}
