// Products of quantized or float matrices with a few vectors. A result depends on its own vector and matrix row alone:
// every token is computed by the same operations in the same order, however many stand beside it.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__AVX512F__) && defined(__AVX512VNNI__) && defined(__AVX512BW__) && !defined(TEXTMILL_PLAIN)
#define TEXTMILL_AVX512 1
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__) && !defined(TEXTMILL_PLAIN)
#define TEXTMILL_AVX2 1
#endif
#if defined(TEXTMILL_AVX512) || defined(TEXTMILL_AVX2)
#include <immintrin.h>
#define TEXTMILL_PAUSE() _mm_pause()
#else
#define TEXTMILL_PAUSE() ((void)0)
#endif

constexpr int LANES = 16;  // matrix rows worked on together: a tile
constexpr int BLOCK = 32;  // inputs that share one scale

enum Kind { FLOAT = 0, INT8 = 1, INT4 = 2 };

// A matrix [rows, columns] packed by packing.py. A tile of 16 rows is a run of blocks of 32 inputs:
//   FLOAT  [32][16] float                                                  w
//   INT8   16 half scales, [8][16][4] uint8 codes                          w = d (code - 128)
//   INT4   16 half scales, 16 half minima, [4][16][4] bytes of two codes   w = d code + m; low halves are inputs 0..15,
//                                                                          high halves inputs 16..31
struct Matrix {
    int32_t kind, rows, columns, blocks;  // columns are padded to whole blocks
    const uint8_t* data;
    const float* bias;
};

inline size_t block_bytes(int kind) {
    return kind == FLOAT ? BLOCK * LANES * 4 : kind == INT8 ? LANES * 2 + BLOCK * LANES : LANES * 4 + BLOCK * LANES / 2;
}

// A token's inputs, quantized: x is about scale[b] * codes; total[b] is the sum of the block's codes, shift[b] that times
// scale[b].
struct Codes {
    int8_t* codes;
    float* scale;
    int32_t* total;
    float* shift;
};

inline void quantize(const float* x, int columns, int blocks, const Codes& q) {
    for (int b = 0; b < blocks; ++b) {
        const int base = b * BLOCK, left = columns - base < BLOCK ? columns - base : BLOCK;
        float most = 0.f;
        for (int i = 0; i < left; ++i) most = std::fabs(x[base + i]) > most ? std::fabs(x[base + i]) : most;
        const float inverse = most > 0.f ? 127.f / most : 0.f;
        int32_t sum = 0;
        for (int i = 0; i < BLOCK; ++i) {
            const int code = i < left ? static_cast<int>(std::nearbyint(x[base + i] * inverse)) : 0;
            q.codes[base + i] = static_cast<int8_t>(code);
            sum += code;
        }
        q.scale[b] = most / 127.f;
        q.total[b] = sum;
        q.shift[b] = q.scale[b] * static_cast<float>(sum);
    }
}

inline float half_to_float(uint16_t h) {
    const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16, exponent = (h >> 10) & 31, fraction = h & 1023;
    uint32_t bits;
    if (exponent == 0) {
        const float value = std::ldexp(static_cast<float>(fraction), -24);
        std::memcpy(&bits, &value, 4);
        bits |= sign;
    } else if (exponent == 31) {
        bits = sign | 0x7f800000 | (fraction << 13);
    } else {
        bits = sign | ((exponent + 112) << 23) | (fraction << 13);
    }
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

// One row of a matrix in floats.
inline void unpack_row(const Matrix& w, int row, float* out) {
    const size_t size = block_bytes(w.kind);
    const uint8_t* tile = w.data + static_cast<size_t>(row / LANES) * w.blocks * size;
    const int lane = row % LANES;
    for (int b = 0; b < w.blocks; ++b, tile += size) {
        const uint16_t* halves = reinterpret_cast<const uint16_t*>(tile);
        for (int i = 0; i < BLOCK && b * BLOCK + i < w.columns; ++i) {
            float value;
            if (w.kind == FLOAT) {
                value = reinterpret_cast<const float*>(tile)[i * LANES + lane];
            } else if (w.kind == INT8) {
                const uint8_t code = tile[LANES * 2 + (i / 4 * LANES + lane) * 4 + i % 4];
                value = half_to_float(halves[lane]) * (static_cast<int>(code) - 128);
            } else {
                const int j = i % 16;
                const uint8_t pair = tile[LANES * 4 + (j / 4 * LANES + lane) * 4 + j % 4];
                const int code = i < 16 ? pair & 15 : pair >> 4;
                value = half_to_float(halves[lane]) * code + half_to_float(halves[LANES + lane]);
            }
            out[b * BLOCK + i] = value;
        }
    }
}

// Sixteen outputs of T tokens: rows tile * 16 ... + 15. `x` are floats [T][stride] (FLOAT), `q` codes with stride
// q_columns and scales with stride w.blocks.
#ifdef TEXTMILL_AVX512
template <int T>
inline void tile_product(const Matrix& w, int tile, const float* const* x, const Codes* q, float* const* out) {
    const size_t size = block_bytes(w.kind);
    const uint8_t* data = w.data + static_cast<size_t>(tile) * w.blocks * size;
    __m512 sum[T];
    for (int t = 0; t < T; ++t) sum[t] = _mm512_setzero_ps();
    if (w.kind == FLOAT) {
        const float* weights = reinterpret_cast<const float*>(data);
        for (int i = 0; i < w.columns; ++i) {
            const __m512 row = _mm512_loadu_ps(weights + static_cast<size_t>(i) * LANES);
            for (int t = 0; t < T; ++t) sum[t] = _mm512_fmadd_ps(row, _mm512_set1_ps(x[t][i]), sum[t]);
        }
    } else {
        const __m512i low = _mm512_set1_epi8(15);
        for (int b = 0; b < w.blocks; ++b, data += size) {
            _mm_prefetch(reinterpret_cast<const char*>(data) + 8 * size, _MM_HINT_T0);
            const __m512 d = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(data)));
            __m512i whole[T];
            if (w.kind == INT8) {
                for (int t = 0; t < T; ++t) whole[t] = _mm512_set1_epi32(-128 * q[t].total[b]);
                const uint8_t* codes = data + LANES * 2;
                for (int g = 0; g < 8; ++g) {
                    const __m512i group = _mm512_loadu_si512(codes + g * 64);
                    for (int t = 0; t < T; ++t) {
                        const int32_t* a = reinterpret_cast<const int32_t*>(q[t].codes + b * BLOCK);
                        whole[t] = _mm512_dpbusd_epi32(whole[t], group, _mm512_set1_epi32(a[g]));
                    }
                }
                for (int t = 0; t < T; ++t) {
                    const __m512 part = _mm512_mul_ps(_mm512_cvtepi32_ps(whole[t]), _mm512_set1_ps(q[t].scale[b]));
                    sum[t] = _mm512_fmadd_ps(part, d, sum[t]);
                }
            } else {
                const __m512 m = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(data + LANES * 2)));
                for (int t = 0; t < T; ++t) whole[t] = _mm512_setzero_si512();
                const uint8_t* codes = data + LANES * 4;
                for (int g = 0; g < 4; ++g) {
                    const __m512i pair = _mm512_loadu_si512(codes + g * 64);
                    const __m512i first = _mm512_and_si512(pair, low);
                    const __m512i second = _mm512_and_si512(_mm512_srli_epi16(pair, 4), low);
                    for (int t = 0; t < T; ++t) {
                        const int32_t* a = reinterpret_cast<const int32_t*>(q[t].codes + b * BLOCK);
                        whole[t] = _mm512_dpbusd_epi32(whole[t], first, _mm512_set1_epi32(a[g]));
                        whole[t] = _mm512_dpbusd_epi32(whole[t], second, _mm512_set1_epi32(a[g + 4]));
                    }
                }
                for (int t = 0; t < T; ++t) {
                    const float s = q[t].scale[b];
                    const __m512 part = _mm512_mul_ps(_mm512_cvtepi32_ps(whole[t]), _mm512_set1_ps(s));
                    sum[t] = _mm512_fmadd_ps(part, d, sum[t]);
                    sum[t] = _mm512_fmadd_ps(m, _mm512_set1_ps(q[t].shift[b]), sum[t]);
                }
            }
        }
    }
    for (int t = 0; t < T; ++t) _mm512_storeu_ps(out[t], sum[t]);
}
#elif defined(TEXTMILL_AVX2)
inline __m256i four_inputs(const int8_t* codes) {  // the same four inputs for eight rows
    int32_t word;
    std::memcpy(&word, codes, 4);
    return _mm256_set1_epi32(word);
}

// Eight of the sixteen outputs; T of at most 4, so that all sums stay in registers.
template <int T>
inline void half_tile(const Matrix& w, const uint8_t* data, int half, const float* const* x, const Codes* q,
                      float* const* out) {
    const size_t size = block_bytes(w.kind);
    __m256 sum[T];
    for (int t = 0; t < T; ++t) sum[t] = _mm256_setzero_ps();
    if (w.kind == FLOAT) {
        const float* weights = reinterpret_cast<const float*>(data) + half * 8;
        for (int i = 0; i < w.columns; ++i) {
            const __m256 row = _mm256_loadu_ps(weights + static_cast<size_t>(i) * LANES);
            for (int t = 0; t < T; ++t) sum[t] = _mm256_fmadd_ps(row, _mm256_broadcast_ss(x[t] + i), sum[t]);
        }
    } else {
        const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
        for (int b = 0; b < w.blocks; ++b, data += size) {
            _mm_prefetch(reinterpret_cast<const char*>(data) + 8 * size, _MM_HINT_T0);
            const __m256 d = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(data) + half));
            __m256i whole[T];
            for (int t = 0; t < T; ++t) whole[t] = _mm256_setzero_si256();
            if (w.kind == INT8) {
                const uint8_t* codes = data + LANES * 2 + half * 32;
                const __m256i middle = _mm256_set1_epi8(-128);
                for (int g = 0; g < 8; ++g) {
                    const __m256i group = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + g * 64));
                    // 255 * 127 * 2 would not fit into 16 bits: |code - 128| times the input with its sign does.
                    const __m256i number = _mm256_xor_si256(group, middle), size_of = _mm256_abs_epi8(number);
                    for (int t = 0; t < T; ++t) {
                        const __m256i a = _mm256_sign_epi8(four_inputs(q[t].codes + b * BLOCK + g * 4), number);
                        const __m256i pairs = _mm256_maddubs_epi16(size_of, a);
                        whole[t] = _mm256_add_epi32(whole[t], _mm256_madd_epi16(pairs, ones));
                    }
                }
                for (int t = 0; t < T; ++t) {
                    const __m256 part = _mm256_mul_ps(_mm256_cvtepi32_ps(whole[t]), _mm256_broadcast_ss(q[t].scale + b));
                    sum[t] = _mm256_fmadd_ps(part, d, sum[t]);
                }
            } else {
                const __m256 m = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(data) + 2 + half));
                const uint8_t* codes = data + LANES * 4 + half * 32;
                for (int g = 0; g < 4; ++g) {
                    const __m256i pair = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + g * 64));
                    const __m256i first = _mm256_and_si256(pair, low);
                    const __m256i second = _mm256_and_si256(_mm256_srli_epi16(pair, 4), low);
                    for (int t = 0; t < T; ++t) {  // at most 8 * 15 * 127 * 2 = 30,480: 16 bits hold it
                        const int8_t* a = q[t].codes + b * BLOCK + g * 4;
                        whole[t] = _mm256_add_epi16(whole[t], _mm256_maddubs_epi16(first, four_inputs(a)));
                        whole[t] = _mm256_add_epi16(whole[t], _mm256_maddubs_epi16(second, four_inputs(a + 16)));
                    }
                }
                for (int t = 0; t < T; ++t) {
                    const __m256 number = _mm256_cvtepi32_ps(_mm256_madd_epi16(whole[t], ones));
                    sum[t] = _mm256_fmadd_ps(_mm256_mul_ps(number, _mm256_broadcast_ss(q[t].scale + b)), d, sum[t]);
                    sum[t] = _mm256_fmadd_ps(m, _mm256_broadcast_ss(q[t].shift + b), sum[t]);
                }
            }
        }
    }
    for (int t = 0; t < T; ++t) _mm256_storeu_ps(out[t] + half * 8, sum[t]);
}

template <int T>
inline void tile_product(const Matrix& w, int tile, const float* const* x, const Codes* q, float* const* out) {
    const uint8_t* data = w.data + static_cast<size_t>(tile) * w.blocks * block_bytes(w.kind);
    constexpr int FIRST = T < 4 ? T : 4, REST = T - FIRST;
    for (int half = 0; half < 2; ++half) {
        half_tile<FIRST>(w, data, half, x, q, out);
        if constexpr (REST > 0) half_tile<REST>(w, data, half, x + FIRST, q + FIRST, out + FIRST);
    }
}
#else
template <int T>
inline void tile_product(const Matrix& w, int tile, const float* const* x, const Codes* q, float* const* out) {
    const size_t size = block_bytes(w.kind);
    for (int t = 0; t < T; ++t) {
        const uint8_t* data = w.data + static_cast<size_t>(tile) * w.blocks * size;
        float sum[LANES] = {};
        if (w.kind == FLOAT) {
            const float* weights = reinterpret_cast<const float*>(data);
            for (int i = 0; i < w.columns; ++i)
                for (int l = 0; l < LANES; ++l) sum[l] += weights[static_cast<size_t>(i) * LANES + l] * x[t][i];
        } else {
            for (int b = 0; b < w.blocks; ++b, data += size) {
                const uint16_t* halves = reinterpret_cast<const uint16_t*>(data);
                const int8_t* a = q[t].codes + b * BLOCK;
                const float s = q[t].scale[b];
                int32_t whole[LANES] = {};
                if (w.kind == INT8) {
                    const uint8_t* codes = data + LANES * 2;
                    for (int g = 0; g < 8; ++g)
                        for (int l = 0; l < LANES; ++l)
                            for (int i = 0; i < 4; ++i) whole[l] += codes[(g * LANES + l) * 4 + i] * a[g * 4 + i];
                    for (int l = 0; l < LANES; ++l)
                        sum[l] += static_cast<float>(whole[l] - 128 * q[t].total[b]) * s * half_to_float(halves[l]);
                } else {
                    const uint8_t* codes = data + LANES * 4;
                    for (int g = 0; g < 4; ++g)
                        for (int l = 0; l < LANES; ++l)
                            for (int i = 0; i < 4; ++i) {
                                const uint8_t pair = codes[(g * LANES + l) * 4 + i];
                                whole[l] += (pair & 15) * a[g * 4 + i] + (pair >> 4) * a[16 + g * 4 + i];
                            }
                    for (int l = 0; l < LANES; ++l) {
                        sum[l] += static_cast<float>(whole[l]) * s * half_to_float(halves[l]);
                        sum[l] += half_to_float(halves[LANES + l]) * q[t].shift[b];
                    }
                }
            }
        }
        for (int l = 0; l < LANES; ++l) out[t][l] = sum[l];
    }
}
#endif
