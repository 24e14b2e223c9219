// The decoder Transformer's forward pass over tokens of many sequences at once, with keys and values in pages.
//
// A token's numbers depend on its own inputs and its sequence's cache alone, by the same operations in the same order
// whatever else is in the call: the matrix products are those of kernels.h, and everything else is done token by token.
// Plain C interface, called by model.py through ctypes. Not safe for two threads at once on one model.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

#include "kernels.h"

namespace {

// ---- threads: a pool that spins for a moment before it sleeps ------------------------------------------------------
//
// On a quiet machine the others are there within microseconds, and whoever sleeps wakes up too late. On a crowded one who
// waits has to sleep: giving the core up for a moment, again and again, gives it to other programs for a whole turn of
// theirs, though the thread waited for may be done at once. (Two hundred times a token.)

constexpr int SPINS = 4000;

class Pool {
   public:
    explicit Pool(int count) : count_(count) {
        for (int id = 1; id < count; ++id) threads_.emplace_back([this, id] { work(id); });
    }
    ~Pool() {
        stop_ = true;
        round_.fetch_add(1);
        wake();
        for (auto& thread : threads_) thread.join();
    }
    int count() const { return count_; }

    // Runs job(id) for id = 0 ... count - 1, the first here.
    template <typename Job>
    void run(const Job& job) {
        if (count_ == 1) {
            job(0);
            return;
        }
        call_ = [](const void* what, int id) { (*static_cast<const Job*>(what))(id); };
        what_ = &job;
        left_.store(count_ - 1);
        round_.fetch_add(1);
        wake();
        job(0);
        wait([this] { return left_.load() == 0; }, SPINS);
    }

    // All threads of one `run` meet here.
    void barrier() {
        if (count_ == 1) return;
        const int turn = turn_.load();
        if (arrived_.fetch_add(1) == count_ - 1) {
            arrived_.store(0);
            turn_.store(turn + 1);
            wake();
            return;
        }
        wait([this, turn] { return turn_.load() != turn; }, SPINS);
    }

   private:
    // Until `done`, which someone makes true and then calls `wake`. A sleeper counts itself before it looks for the last
    // time, the other looks for sleepers after the change: one of the two sees the other.
    template <typename Done>
    void wait(const Done& done, int spins) {
        for (int spin = 0; spin < spins; ++spin) {
            if (done()) return;
            TEXTMILL_PAUSE();
        }
        std::unique_lock<std::mutex> lock(mutex_);
        sleepers_.fetch_add(1);
        changed_.wait(lock, done);
        sleepers_.fetch_sub(1);
    }

    void wake() {
        if (sleepers_.load() == 0) return;
        { std::lock_guard<std::mutex> lock(mutex_); }
        changed_.notify_all();
    }

    void work(int id) {
        int seen = 0;
        while (true) {
            wait([this, seen] { return round_.load() != seen; }, 5 * SPINS);
            seen = round_.load();
            if (stop_) return;
            call_(what_, id);
            if (left_.fetch_sub(1) == 1) wake();
        }
    }

    int count_;
    std::vector<std::thread> threads_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::atomic<int> round_{0}, left_{0}, turn_{0}, arrived_{0}, sleepers_{0};
    std::atomic<bool> stop_{false};
    void (*call_)(const void*, int) = nullptr;
    const void* what_ = nullptr;
};

// ---- the model -----------------------------------------------------------------------------------------------------

enum NormKind { RMS = 0, LAYER = 1, RMS_WEIGHT = 2 };
enum Activation { RELU2 = 0, GELU = 1, GELU_EXACT = 2, SILU = 3 };

struct Config {  // mirrored by model.py
    int32_t vocabulary, layers, width, heads, groups, size, hidden, gated, norm, activation, rotated, qk_norm;
    int32_t embedding_norm, residual_lambdas, bigram_buckets, smear, post_norm, cache_int8;
    float epsilon, attention_scale, attention_cap, embedding_scale, logit_cap;
};

struct Layer {  // mirrored by model.py; null where the model has none
    Matrix qkv, out, up, down;
    const float *norm_1, *norm_1_bias, *norm_2, *norm_2_bias, *post_1, *post_1_bias, *post_2, *post_2_bias;
    const float *query_norm, *key_norm, *mix, *value_gate, *value_table;
    int32_t reach, local;
};

struct Tables {  // mirrored by model.py
    Matrix head, table;  // table: an embedding kept as codes, of its own; no rows where there is none
    const float *embedding, *bigram, *position, *smear, *final, *final_bias, *frequency, *frequency_local;
};

constexpr int PAGE = 32;  // positions of a page

#ifdef TEXTMILL_AVX512
constexpr int WIDTH = 16;  // floats of a register: vectors beyond it the compiler does badly
#else
constexpr int WIDTH = 8;
#endif
typedef float Lanes __attribute__((vector_size(4 * WIDTH)));

inline Lanes lanes(const float* from) {
    Lanes found;
    std::memcpy(&found, from, sizeof found);
    return found;
}

inline Lanes lanes(const int8_t* from) {
#if defined(TEXTMILL_AVX512)
    return reinterpret_cast<Lanes>(
        _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)))));
#elif defined(TEXTMILL_AVX2)
    return reinterpret_cast<Lanes>(
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)))));
#else
    Lanes found;
    for (int i = 0; i < WIDTH; ++i) found[i] = from[i];
    return found;
#endif
}

inline float sum_of(const float* x, int n) {
    float sum = 0.f;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < n; ++i) sum += x[i];
    return sum;
}

inline float squares_of(const float* x, int n) {
    float sum = 0.f;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < n; ++i) sum += x[i] * x[i];
    return sum;
}

// exp for x <= 88, relative error about 1e-7 (Cephes' polynomial): simple enough that a compiler makes vectors of it.
inline float exp_of(float x) {
    x = std::max(-87.f, std::min(88.f, x));
    const float whole = std::floor(x * 1.44269504f + 0.5f);
    const float r = (x - whole * 0.693359375f) - whole * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.f;
    const int32_t bits = (static_cast<int32_t>(whole) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, 4);
    return p * power;
}

// Logits to log-probabilities, in place. Sums of 1,024 values each keep what a long row's small ones add.
void log_softmax(float* x, int n) {
    float most = x[0];
#pragma omp simd reduction(max : most)
    for (int i = 0; i < n; ++i) most = most > x[i] ? most : x[i];
    double all = 0.0;
    for (int from = 0; from < n; from += 1024) {
        const int to = std::min(n, from + 1024);
        float sum = 0.f;
#pragma omp simd reduction(+ : sum)
        for (int i = from; i < to; ++i) sum += exp_of(x[i] - most);
        all += sum;
    }
    const float whole = most + static_cast<float>(std::log(all));
    for (int i = 0; i < n; ++i) x[i] -= whole;
}

void normalize(const float* x, float* out, int n, int kind, float epsilon, const float* weight, const float* bias) {
    if (kind == LAYER) {
        const float mean = sum_of(x, n) / n;
        float variance = 0.f;
#pragma omp simd reduction(+ : variance)
        for (int i = 0; i < n; ++i) variance += (x[i] - mean) * (x[i] - mean);
        const float scale = 1.f / std::sqrt(variance / n + epsilon);
        for (int i = 0; i < n; ++i) out[i] = (x[i] - mean) * scale * weight[i] + bias[i];
        return;
    }
    const float scale = 1.f / std::sqrt(squares_of(x, n) / n + epsilon);
    if (weight != nullptr) {
        for (int i = 0; i < n; ++i) out[i] = x[i] * scale * weight[i];
    } else {
        for (int i = 0; i < n; ++i) out[i] = x[i] * scale;
    }
}

void activate(float* x, int n, int kind) {
    switch (kind) {
        case RELU2:
            for (int i = 0; i < n; ++i) {
                const float positive = std::max(0.f, x[i]);
                x[i] = positive * positive;
            }
            return;
        case SILU:
#pragma omp simd
            for (int i = 0; i < n; ++i) x[i] = x[i] / (1.f + exp_of(-x[i]));
            return;
        case GELU:
#pragma omp simd
            for (int i = 0; i < n; ++i) {
                const float inner = 0.7978845608f * (x[i] + 0.044715f * x[i] * x[i] * x[i]);
                const float power = exp_of(std::min(2.f * inner, 80.f));
                x[i] = 0.5f * x[i] * (1.f + (power - 1.f) / (power + 1.f));
            }
            return;
        default:
            for (int i = 0; i < n; ++i) x[i] = 0.5f * x[i] * (1.f + std::erf(x[i] * 0.70710678f));
    }
}

struct Model {
    Config c;
    Tables t;
    std::vector<Layer> layers;
    Pool pool;
    // Work space for the tokens of one call.
    std::vector<float> x, x0, normed, qkv, mixed, up, down, scale;
    std::vector<int8_t> codes;
    std::vector<int32_t> total;
    std::vector<float> shift;
    std::vector<std::vector<float>> scores;  // a thread's own
    int most_columns = 0;

    Model(const Config& config, const Tables& tables, const Layer* all, int threads)
        : c(config), t(tables), layers(all, all + config.layers), pool(threads), scores(threads) {
        for (const Layer& layer : layers)
            for (const Matrix* w : {&layer.qkv, &layer.out, &layer.up, &layer.down})
                most_columns = std::max(most_columns, w->blocks * BLOCK);
        most_columns = std::max(most_columns, t.head.blocks * BLOCK);
    }

    void room(int tokens) {
        const size_t n = tokens;
        const size_t wide = (c.heads + 2 * c.groups) * c.size;
        x.resize(n * c.width), x0.resize(n * c.width), normed.resize(n * c.width), down.resize(n * c.width);
        qkv.resize(n * (wide + LANES)), mixed.resize(n * c.heads * c.size);
        up.resize(n * ((c.gated ? 2 : 1) * c.hidden + LANES));
        codes.resize(n * most_columns), scale.resize(n * most_columns / BLOCK), total.resize(n * most_columns / BLOCK);
        shift.resize(n * most_columns / BLOCK);
    }

    // This thread's share [first, last) of so many pieces.
    void share(int id, int pieces, int& first, int& last) const {
        first = static_cast<int>(static_cast<int64_t>(pieces) * id / pool.count());
        last = static_cast<int>(static_cast<int64_t>(pieces) * (id + 1) / pool.count());
    }

    // out[n] = W in[n] (+ bias) for every token; quantizes first where the weights are codes. Called by all threads.
    void multiply(int id, const Matrix& w, const float* in, int in_stride, float* out, int out_stride, int tokens) {
        int first, last;
        const int columns = w.blocks * BLOCK;
        const auto of_token = [&](size_t n) {
            return Codes{&codes[n * columns], &scale[n * w.blocks], &total[n * w.blocks], &shift[n * w.blocks]};
        };
        if (w.kind != FLOAT) {
            share(id, tokens, first, last);
            for (int n = first; n < last; ++n)
                quantize(in + static_cast<size_t>(n) * in_stride, w.columns, w.blocks, of_token(n));
            pool.barrier();
        }
        share(id, (w.rows + LANES - 1) / LANES, first, last);
        constexpr int AT_ONCE = 8;
        alignas(64) float kept[AT_ONCE][LANES];
        const float* inputs[AT_ONCE];
        Codes quantized[AT_ONCE];
        float* outputs[AT_ONCE];
        // A group of tokens goes through a few tiles while its inputs are near; a tile's weights then meet all groups.
        constexpr int TILES = 8;
        for (int from = first; from < last; from += TILES) {
            const int to = std::min(last, from + TILES);
            for (int start = 0; start < tokens; start += AT_ONCE) {
                const int count = std::min(AT_ONCE, tokens - start);
                for (int k = 0; k < count; ++k) {
                    const size_t n = start + k;
                    inputs[k] = in + n * in_stride;
                    quantized[k] = of_token(n);
                    outputs[k] = kept[k];
                }
                for (int tile = from; tile < to; ++tile) {
                    switch (count) {
                        case 8: tile_product<8>(w, tile, inputs, quantized, outputs); break;
                        case 7: tile_product<7>(w, tile, inputs, quantized, outputs); break;
                        case 6: tile_product<6>(w, tile, inputs, quantized, outputs); break;
                        case 5: tile_product<5>(w, tile, inputs, quantized, outputs); break;
                        case 4: tile_product<4>(w, tile, inputs, quantized, outputs); break;
                        case 3: tile_product<3>(w, tile, inputs, quantized, outputs); break;
                        case 2: tile_product<2>(w, tile, inputs, quantized, outputs); break;
                        default: tile_product<1>(w, tile, inputs, quantized, outputs);
                    }
                    const int rows = std::min(LANES, w.rows - tile * LANES);
                    for (int k = 0; k < count; ++k) {
                        float* target = out + static_cast<size_t>(start + k) * out_stride + tile * LANES;
                        for (int l = 0; l < rows; ++l)
                            target[l] = kept[k][l] + (w.bias != nullptr ? w.bias[tile * LANES + l] : 0.f);
                    }
                }
            }
        }
        pool.barrier();
    }

    void table_row(int token, float* out) const {
        if (t.embedding != nullptr) {
            std::copy_n(t.embedding + static_cast<size_t>(token) * c.width, c.width, out);
        } else if (t.table.rows > 0) {
            unpack_row(t.table, token, out);
        } else {
            unpack_row(t.head, token, out);
        }
    }

    void embed(int token, int previous, int position, float* out, float* scratch) const {
        const int width = c.width;
        table_row(token, out);
        if (c.embedding_scale != 1.f)
            for (int i = 0; i < width; ++i) out[i] *= c.embedding_scale;
        if (c.bigram_buckets) {
            int64_t row = 0;
            if (previous >= 0) {
                const int64_t mixed_up = (static_cast<int64_t>(previous) * 36313) ^ (static_cast<int64_t>(token) * 27191);
                row = 1 + mixed_up % (c.bigram_buckets - 1);
            }
            const float* from = t.bigram + static_cast<size_t>(row) * width;
            for (int i = 0; i < width; ++i) out[i] += from[i];
        }
        if (t.position != nullptr)
            for (int i = 0; i < width; ++i) out[i] += t.position[static_cast<size_t>(position) * width + i];
        if (c.smear && previous >= 0) {
            table_row(previous, scratch);
            for (int i = 0; i < width; ++i) out[i] += t.smear[i] * scratch[i];
        }
        if (c.embedding_norm) normalize(out, out, width, RMS, 1e-6f, nullptr, nullptr);
    }

    void rotate(float* head, int position, const float* frequency) const {
        const int half = c.rotated / 2;
        for (int i = 0; i < half; ++i) {
            const float angle = static_cast<float>(position) * frequency[i];
            const float cosine = std::cos(angle), sine = std::sin(angle);
            const float a = head[i], b = head[half + i];
            head[i] = a * cosine + b * sine;
            head[half + i] = b * cosine - a * sine;
        }
    }

    void run(uint8_t* cache, int64_t pages, int tokens, const int32_t* ids, const int32_t* rows, const int32_t* positions,
             const int32_t* previous, const int32_t* tables, int table_width, int wanted, const int32_t* places,
             float* logits, bool normalized) {
        room(tokens);
        pool.run([&](int id) { work(id, cache, pages, tokens, ids, rows, positions, previous, tables, table_width, wanted,
                                    places, logits, normalized); });
    }

    // Keys of one layer: [page][group][size][position in the page], so that scores of a page are made side by side; the
    // values, after all pages of keys: [page][group][position in the page][size]. As int8, a group's codes are followed
    // by a float for each position: what one step of its codes is worth.
    size_t group_bytes() const { return PAGE * (c.cache_int8 ? c.size + sizeof(float) : c.size * sizeof(float)); }

    uint8_t* slot(uint8_t* cache, int64_t pages, int layer, bool values, int64_t page, int group) const {
        const size_t one = c.groups * group_bytes();
        return cache + ((static_cast<int64_t>(layer) * 2 + values) * pages + page) * one + group * group_bytes();
    }

    // Put one position's key or value into its group's part of a page: `step` apart, beginning at `at`.
    void keep(const float* x, uint8_t* part, int position, int at, int step) const {
        const int K = c.size;
        if (!c.cache_int8) {
            float* to = reinterpret_cast<float*>(part) + at;
            for (int i = 0; i < K; ++i) to[static_cast<size_t>(i) * step] = x[i];
            return;
        }
        float most = 0.f;
        for (int i = 0; i < K; ++i) most = std::max(most, std::fabs(x[i]));
        const float inverse = most > 0.f ? 127.f / most : 0.f;
        int8_t* to = reinterpret_cast<int8_t*>(part) + at;
        for (int i = 0; i < K; ++i)
            to[static_cast<size_t>(i) * step] = static_cast<int8_t>(std::nearbyint(x[i] * inverse));
        reinterpret_cast<float*>(part + PAGE * K)[position] = most / 127.f;
    }

    void work(int id, uint8_t* cache, int64_t pages, int tokens, const int32_t* ids, const int32_t* rows,
              const int32_t* positions, const int32_t* previous, const int32_t* tables, int table_width, int wanted,
              const int32_t* places, float* logits, bool normalized) {
        const int width = c.width, wide = (c.heads + 2 * c.groups) * c.size, K = c.size;
        const int hidden = (c.gated ? 2 : 1) * c.hidden;
        int first, last;
        std::vector<float> scratch(std::max(width, K));
        share(id, tokens, first, last);
        for (int n = first; n < last; ++n) {
            float* here = &x[static_cast<size_t>(n) * width];
            embed(ids[n], previous[n], positions[n], here, scratch.data());
            if (c.residual_lambdas) std::copy_n(here, width, &x0[static_cast<size_t>(n) * width]);
        }
        for (int l = 0; l < c.layers; ++l) {
            const Layer& layer = layers[l];
            share(id, tokens, first, last);
            for (int n = first; n < last; ++n) {
                float* here = &x[static_cast<size_t>(n) * width];
                if (c.residual_lambdas) {
                    const float* start = &x0[static_cast<size_t>(n) * width];
                    for (int i = 0; i < width; ++i) here[i] = layer.mix[0] * here[i] + layer.mix[1] * start[i];
                }
                normalize(here, &normed[static_cast<size_t>(n) * width], width, c.norm, c.epsilon, layer.norm_1,
                          layer.norm_1_bias);
            }
            pool.barrier();
            multiply(id, layer.qkv, normed.data(), width, qkv.data(), wide, tokens);
            const float* frequency = layer.local && t.frequency_local != nullptr ? t.frequency_local : t.frequency;
            for (int n = first; n < last; ++n) {
                float* q = &qkv[static_cast<size_t>(n) * wide];
                float* k = q + c.heads * K;
                float* v = k + c.groups * K;
                if (layer.value_table != nullptr) {
                    const float* row = layer.value_table + static_cast<size_t>(ids[n]) * c.groups * K;
                    for (int g = 0; g < c.groups; ++g)
                        for (int i = 0; i < K; ++i) v[g * K + i] += layer.value_gate[g] * row[g * K + i];
                }
                for (int h = 0; h < c.heads + c.groups; ++h) {
                    float* head = q + h * K;
                    if (c.qk_norm) {
                        const float* weight = h < c.heads ? layer.query_norm : layer.key_norm;
                        normalize(head, head, K, weight != nullptr ? RMS_WEIGHT : RMS, weight != nullptr ? c.epsilon : 1e-6f,
                                  weight, nullptr);
                    }
                    if (c.rotated) rotate(head, positions[n], frequency);
                }
                const int64_t page = tables[static_cast<int64_t>(rows[n]) * table_width + positions[n] / PAGE];
                const int inside = positions[n] % PAGE;
                for (int g = 0; g < c.groups; ++g) {
                    keep(k + g * K, slot(cache, pages, l, false, page, g), inside, inside, PAGE);
                    keep(v + g * K, slot(cache, pages, l, true, page, g), inside, inside * K, 1);
                }
            }
            pool.barrier();
            int begin, end;
            share(id, tokens * c.heads, begin, end);
            for (int piece = begin; piece < end; ++piece) {
                const int n = piece / c.heads, h = piece % c.heads;
                const auto one = [&](auto kind) {
                    attend<decltype(kind)>(id, cache, pages, l, layer, tables + static_cast<int64_t>(rows[n]) * table_width,
                                           positions[n], h, &qkv[static_cast<size_t>(n) * wide + h * K],
                                           &mixed[(static_cast<size_t>(n) * c.heads + h) * K]);
                };
                if (c.cache_int8) {
                    one(int8_t{});
                } else {
                    one(float{});
                }
            }
            pool.barrier();
            multiply(id, layer.out, mixed.data(), c.heads * K, down.data(), width, tokens);
            for (int n = first; n < last; ++n) {
                float* here = &x[static_cast<size_t>(n) * width];
                float* added = &down[static_cast<size_t>(n) * width];
                if (c.post_norm) normalize(added, added, width, post_kind(), c.epsilon, layer.post_1, layer.post_1_bias);
                for (int i = 0; i < width; ++i) here[i] += added[i];
                normalize(here, &normed[static_cast<size_t>(n) * width], width, c.norm, c.epsilon, layer.norm_2,
                          layer.norm_2_bias);
            }
            pool.barrier();
            multiply(id, layer.up, normed.data(), width, up.data(), hidden, tokens);
            // The hidden values, piece by piece of the row, so that one token keeps all threads busy.
            constexpr int PIECE = 256;
            const int pieces = (c.hidden + PIECE - 1) / PIECE;
            share(id, tokens * pieces, begin, end);
            for (int piece = begin; piece < end; ++piece) {
                float* row = &up[static_cast<size_t>(piece / pieces) * hidden];
                const int from = piece % pieces * PIECE, count = std::min(PIECE, c.hidden - from);
                activate(row + from, count, c.activation);
                if (c.gated)
                    for (int i = 0; i < count; ++i) row[from + i] *= row[c.hidden + from + i];
            }
            pool.barrier();
            multiply(id, layer.down, up.data(), hidden, down.data(), width, tokens);
            for (int n = first; n < last; ++n) {
                float* here = &x[static_cast<size_t>(n) * width];
                float* added = &down[static_cast<size_t>(n) * width];
                if (c.post_norm) normalize(added, added, width, post_kind(), c.epsilon, layer.post_2, layer.post_2_bias);
                for (int i = 0; i < width; ++i) here[i] += added[i];
            }
        }
        pool.barrier();
        share(id, wanted, first, last);
        for (int w = first; w < last; ++w)
            normalize(&x[static_cast<size_t>(places[w]) * width], &normed[static_cast<size_t>(w) * width], width, c.norm,
                      c.epsilon, t.final, t.final_bias);
        pool.barrier();
        multiply(id, t.head, normed.data(), width, logits, c.vocabulary, wanted);
        share(id, wanted, first, last);
        for (int w = first; w < last; ++w) {
            float* row = logits + static_cast<size_t>(w) * c.vocabulary;
            if (c.logit_cap > 0.f)
                for (int i = 0; i < c.vocabulary; ++i) row[i] = c.logit_cap * std::tanh(row[i] / c.logit_cap);
            if (normalized) log_softmax(row, c.vocabulary);
        }
    }

    int post_kind() const { return c.norm == LAYER ? LAYER : RMS_WEIGHT; }

    // `Number` is what the cache is made of: float, or int8_t with a scale for each position.
    template <typename Number>
    void attend(int id, uint8_t* cache, int64_t pages, int l, const Layer& layer, const int32_t* table, int position, int h,
                const float* q, float* out) {
        constexpr bool coded = std::is_same_v<Number, int8_t>;
        const int K = c.size, group = h / (c.heads / c.groups);
        const auto steps_of = [K](const uint8_t* part) { return reinterpret_cast<const float*>(part + PAGE * K); };
        const int start = std::max(0, position - layer.reach + 1), seen = position + 1 - start;
        std::vector<float>& weights = scores[id];
        const int from = start / PAGE, to = position / PAGE;  // whole pages are scored, what is not seen is left out
        if (static_cast<int>(weights.size()) < (to - from + 1) * PAGE) weights.resize((to - from + 9) * PAGE);
        const int offset = from * PAGE;
        for (int page = from; page <= to; ++page) {
            const uint8_t* part = slot(cache, pages, l, false, table[page], group);
            const Number* keys = reinterpret_cast<const Number*>(part);
            Lanes sums[PAGE / WIDTH] = {};
            for (int i = 0; i < K; ++i)
                for (int k = 0; k < PAGE / WIDTH; ++k) sums[k] += q[i] * lanes(keys + i * PAGE + k * WIDTH);
            if constexpr (coded)
                for (int k = 0; k < PAGE / WIDTH; ++k) sums[k] *= lanes(steps_of(part) + k * WIDTH);
            std::memcpy(&weights[page * PAGE - offset], sums, sizeof sums);
        }
        float* here = &weights[start - offset];
        for (int j = 0; j < seen; ++j) here[j] *= c.attention_scale;
        if (c.attention_cap > 0.f)
            for (int j = 0; j < seen; ++j) here[j] = c.attention_cap * std::tanh(here[j] / c.attention_cap);
        float most = here[0];
#pragma omp simd reduction(max : most)
        for (int j = 0; j < seen; ++j) most = most > here[j] ? most : here[j];
#pragma omp simd
        for (int j = 0; j < seen; ++j) here[j] = exp_of(here[j] - most);
        const float all = sum_of(here, seen);
        if constexpr (coded)  // what a position's value counts for takes in what its codes are worth
            for (int p = start; p <= position; ++p)
                here[p - start] *= steps_of(slot(cache, pages, l, true, table[p / PAGE], group))[p % PAGE];
        std::fill_n(out, K, 0.f);
        constexpr int WIDE = 64;
        for (int part = 0; part < K; part += WIDE) {
            if (part + WIDE <= K) {
                Lanes sums[WIDE / WIDTH] = {};
                for (int p = start; p <= position;) {
                    const int inside = p % PAGE, count = std::min(PAGE - inside, position + 1 - p);
                    const Number* values =
                        reinterpret_cast<const Number*>(slot(cache, pages, l, true, table[p / PAGE], group)) + inside * K +
                        part;
                    for (int j = 0; j < count; ++j, values += K) {
                        const float share = here[p - start + j];
                        for (int k = 0; k < WIDE / WIDTH; ++k) sums[k] += share * lanes(values + k * WIDTH);
                    }
                    p += count;
                }
                std::memcpy(out + part, sums, sizeof sums);
                continue;
            }
            for (int p = start; p <= position; ++p) {
                const Number* values =
                    reinterpret_cast<const Number*>(slot(cache, pages, l, true, table[p / PAGE], group)) + (p % PAGE) * K;
                for (int i = part; i < K; ++i) out[i] += here[p - start] * values[i];
            }
        }
        const float inverse = 1.f / all;
        for (int i = 0; i < K; ++i) out[i] *= inverse;
    }
};

}  // namespace

extern "C" {

void* textmill_model(const Config* config, const Tables* tables, const Layer* layers, int threads) {
    return new Model(*config, *tables, layers, threads);
}

void textmill_free(void* model) { delete static_cast<Model*>(model); }

void textmill_forward(void* model, uint8_t* cache, int64_t pages, int tokens, const int32_t* ids, const int32_t* rows,
                      const int32_t* positions, const int32_t* previous, const int32_t* tables, int table_width,
                      int wanted, const int32_t* places, float* logits, int normalized) {
    static_cast<Model*>(model)->run(cache, pages, tokens, ids, rows, positions, previous, tables, table_width, wanted,
                                    places, logits, normalized != 0);
}

void textmill_unpack_row(const Matrix* matrix, int row, float* out) { unpack_row(*matrix, row, out); }

int textmill_fast() {
#if defined(TEXTMILL_AVX512)
    return 2;
#elif defined(TEXTMILL_AVX2)
    return 1;
#else
    return 0;
#endif
}
}
