/* Vectors of floats, and the activations: shared by all kernels.
 *
 * The source is compiled twice: for AVX2 with FMA (16 registers of 8 floats), and for AVX-512
 * (32 registers of 16 floats).
 */

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

#ifdef __AVX512F__

#define LANES 16
typedef __m512 vec;
INLINE vec load(const float *from) { return _mm512_loadu_ps(from); }
INLINE void store(float *to, vec value) { _mm512_storeu_ps(to, value); }
INLINE vec all(float value) { return _mm512_set1_ps(value); }
INLINE vec larger(vec a, vec b) { return _mm512_max_ps(a, b); }
INLINE vec smaller(vec a, vec b) { return _mm512_min_ps(a, b); }
INLINE float sum_of(vec value) { return _mm512_reduce_add_ps(value); }
INLINE float largest_of(vec value) { return _mm512_reduce_max_ps(value); }

#else

#define LANES 8
typedef __m256 vec;
INLINE vec load(const float *from) { return _mm256_loadu_ps(from); }
INLINE void store(float *to, vec value) { _mm256_storeu_ps(to, value); }
INLINE vec all(float value) { return _mm256_set1_ps(value); }
INLINE vec larger(vec a, vec b) { return _mm256_max_ps(a, b); }
INLINE vec smaller(vec a, vec b) { return _mm256_min_ps(a, b); }

INLINE float sum_of(vec value) {
    float each[LANES];
    store(each, value);
    return ((each[0] + each[1]) + (each[2] + each[3])) + ((each[4] + each[5]) + (each[6] + each[7]));
}

INLINE float largest_of(vec value) {
    value = larger(value, _mm256_permute2f128_ps(value, value, 1));
    value = larger(value, _mm256_permute_ps(value, 0x4e));
    return _mm256_cvtss_f32(larger(value, _mm256_permute_ps(value, 0xb1)));
}

#endif

/* The numbers of `service.kernels.activation_number`. */
enum activation { NONE, RELU, GELU };

/* x (1 + erf(x / sqrt 2)) / 2. erf is approximated by a quotient of polynomials, to 1e-6. */
INLINE vec gelu(vec x) {
    vec t = smaller(larger(x * 0.70710678f, all(-4)), all(4)), q = t * t;
    vec above = q * -2.72614225801306e-10f + 2.77068142495902e-08f;
    above = above * q - 2.10102402082508e-06f;
    above = above * q - 5.69250639462346e-05f;
    above = above * q - 7.34990630326855e-04f;
    above = above * q - 2.95459980854025e-03f;
    above = above * q - 1.60960333262415e-02f;
    vec below = q * -1.45660718464996e-05f - 2.13374055278905e-04f;
    below = below * q - 1.68282697438203e-03f;
    below = below * q - 7.37332916720468e-03f;
    below = below * q - 1.42647390514189e-02f;
    return 0.5f * x * (1 + t * above / below);
}

INLINE vec activate(enum activation activation, vec x) {
    if (activation == RELU) return larger(x, all(0));
    return activation == GELU ? gelu(x) : x;
}
