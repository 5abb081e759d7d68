// Training of many small networks: a block is a network, for many batches in one launch.  Its weights,
// their gradient and the optimiser's state stay in shared memory; a batch passes in tiles of TILE rows,
// of which one block holds x, n and what f' needs.  The results are those of gather, the products,
// activate, loss, backprop, prepare_update and update, in turn.
//
// A row of a matrix in shared memory is longer than its columns, by the odd number of 128-bit packs
// that keeps neighbouring rows in different banks; what is between is never used.  n^(k) becomes
// delta^(k) in its place, once the gradient of W^(k+1) has been taken from it.
//
// What bounds it is said in persistent_products.cuh.  From global memory come a batch's rows, each read
// once, and a few numbers: neither weights nor activations.
//
// The generated text before this one (gpumlp/backend/sources.py) defines Source (the type of X), Form,
// ROWS, LOG_U and FUSED (as gpumlp/functions/loss.py has them), Rule (of the optimiser), IN_USE (state
// buffers that it uses), NETWORKS (blocks of an SM), LAYERS, TILE, SIZE (of a network's row in the
// buffers), NUMBERS (of one in shared memory, a multiple of VEC; the first DECAYED are weights), and a
// Layer<k> for each k.

// ---------------------------------------------------------------- what a block knows
struct Network {
    Real *memory, *theta, *g, *state;                   // of shared memory; theta is its beginning
    long long m;                                        // which one it is
    unsigned long long seed;
    const unsigned* dropout;                            // (LAYERS + 1): an element is dropped if below
    unsigned step;                                      // updates made so far
};

// A tile of the batch: `count` rows from the batch's row `first` on.
struct Tile { int first, count; };

struct Rows {
    const int* source;                                  // where each row of the tile lies in the data
    const Real* weight;                                 // and its weight; 0 for padding
};

// move(place in shared memory, place in a row of a buffer) for every parameter.
template<int k, class Move>
__device__ __forceinline__ void each_parameter(Move move)
{
    typedef Layer<k> L;
    for (int i = thread_in_block(); i < L::OUTPUTS * L::INPUTS; i += THREADS)
        move(L::W + i / L::INPUTS * L::IN_LEAD + i % L::INPUTS, L::FROM_W + i);
    for (int i = thread_in_block(); i < L::OUTPUTS; i += THREADS) move(L::B + i, L::FROM_B + i);
    if (L::LEARNED && thread_in_block() == 0) move(L::SLOPE, L::FROM_SLOPE);
    if constexpr (k < LAYERS) each_parameter<k + 1>(move);
}

// The sums over the block's threads of S numbers of each, in a fixed order; valid in every thread.
template<int S>
__device__ __forceinline__ void block_sums(Real (&value)[S])
{
    __shared__ Real parts[S][THREADS / 32];
    const int t = thread_in_block();
    for (int s = 0; s < S; ++s)
        for (int o = 16; o; o >>= 1) value[s] += __shfl_xor_sync(0xffffffffu, value[s], o);
    __syncthreads();                                    // the array's last use is over
    if (t % 32 == 0)
        for (int s = 0; s < S; ++s) parts[s][t / 32] = value[s];
    __syncthreads();
    for (int s = 0; s < S; ++s) {
        value[s] = Real(0);
        for (int w = 0; w < THREADS / 32; ++w) value[s] += parts[s][w];
    }
}

// ---------------------------------------------------------------- one layer
template<class L> __device__ __forceinline__ Parameters parameters_of(const Network& net)
{
    if constexpr (L::LEARNED) return Parameters{{net.theta[L::SLOPE], Real(0)}};
    else return Parameters{{Real(L::P0), Real(L::P1)}};
}

// The random bits of V neighbours; `element` is the first one's place in the batch.
template<int V> struct NoiseBits { Bits<V> slope, dropout; };

template<class L, int V>
__device__ __forceinline__ NoiseBits<V> noise_bits(const Network& net, long long element)
{
    NoiseBits<V> bits = {};
    if constexpr (L::RANDOM) bits.slope = random_bits<V>(net.seed, element, L::NUMBER, net.step, SLOPE);
    if constexpr (L::DROPOUT) bits.dropout = random_bits<V>(net.seed, element, L::NUMBER, net.step, DROPOUT);
    return bits;
}

// n = f(z + b), (2)(4)(6)(9), with dropout; z without its bias lies where n will.
template<class L>
__device__ __forceinline__ void activate(const Network& net, Tile tile)
{
    constexpr int V = neighbours<L::OUTPUTS>(VEC), PACKS = L::OUTPUTS / V;
    const Parameters layer = parameters_of<L>(net);
    const unsigned threshold = L::DROPOUT ? net.dropout[L::NUMBER] : 0;
    const Real scale = keep_scale(threshold);
    #pragma unroll 1
    for (int i = thread_in_block(); i < tile.count * PACKS; i += THREADS) {
        const int row = i / PACKS, column = i % PACKS * V, at = row * L::LEAD + column;
        const Pack<V> z = load<V>(net.memory + L::N + at), bias = load<V>(net.theta + L::B + column);
        const NoiseBits<V> bits = noise_bits<L, V>(net, (long long)(tile.first + row) * L::OUTPUTS + column);
        Pack<V> value, result;
        #pragma unroll
        for (int v = 0; v < V; ++v) {
            const Parameters own = L::RANDOM ? drawn(layer, bits.slope.v[v]) : layer;
            value.v[v] = z.v[v] + bias.v[v];
            result.v[v] = L::F::f(value.v[v], own.p);
            if constexpr (L::DROPOUT)
                result.v[v] = bits.dropout.v[v] >= threshold ? result.v[v] * scale : Real(0);
        }
        if (L::KEEPS_Z) store<V>(net.memory + L::Z + at, value);
        store<V>(net.memory + L::N + at, result);
    }
}

// From dL/dn to delta = dL/dz of V neighbours, (11), through dropout; `at` is their place in the tile.
// Adds the gradient of a learned slope to `slope`.
template<class L, int V>
__device__ __forceinline__ Pack<V> derive(const Network& net, Pack<V> d, int at, long long element, Real& slope)
{
    const Parameters layer = parameters_of<L>(net);
    const unsigned threshold = L::DROPOUT ? net.dropout[L::NUMBER] : 0;
    const Real scale = keep_scale(threshold);
    Pack<V> z = {}, n = {};
    if constexpr (L::KEEPS_Z) z = load<V>(net.memory + L::Z + at);
    else n = load<V>(net.memory + L::N + at);
    const NoiseBits<V> bits = noise_bits<L, V>(net, element);
    #pragma unroll
    for (int v = 0; v < V; ++v) {
        const Parameters own = L::RANDOM ? drawn(layer, bits.slope.v[v]) : layer;
        if constexpr (L::DROPOUT) {
            d.v[v] = bits.dropout.v[v] >= threshold ? d.v[v] * scale : Real(0);
            n.v[v] /= scale;                            // n before dropout
        }
        if constexpr (L::LEARNED) slope += d.v[v] * L::F::dp(z.v[v]);
        d.v[v] *= L::F::df(z.v[v], n.v[v], own.p);
    }
    return d;
}

// ---------------------------------------------------------------- forward, loss, backward
// (1)-(9) of layers 1..k; of the last one only z without its bias, if the loss is computed from it.
template<int k>
__device__ __forceinline__ void forward(const Network& net, Tile tile)
{
    typedef Layer<k> L;
    if constexpr (k > 1) forward<k - 1>(net, tile);
    Real* z = net.memory + L::N;
    product_by_rows<TILE, L::OUTPUTS, L::INPUTS, L::IN_LEAD>(
        net.memory + L::X, net.theta + L::W, tile.count,
        [&](int row, int column, Real value) { z[row * L::LEAD + column] = value; });
    __syncthreads();
    if constexpr (k < LAYERS || !FUSED) {
        activate<L>(net, tile);
        __syncthreads();
    }
}

// (7) and delta^(K), in the place of z or ŷ; returns this thread's part of the loss.
__device__ __forceinline__ Real loss_and_delta(const Network& net, Tile tile, Rows rows, const Targets& targets,
    Real factor, const Real* p, Real& slope)
{
    typedef Layer<LAYERS> L;
    const Real* bias = net.theta + L::B;
    Real sum = Real(0);
    for (int first = 0; first < tile.count; first += blockDim.y) {
        const int row = first + int(threadIdx.y);       // rows beyond the last take part in shuffles
        const bool there = row < tile.count;
        const Real weight = there ? rows.weight[row] : Real(0);
        const long long source = there ? rows.source[row] : 0;
        Real* u = net.memory + L::N + row * L::LEAD;
        if constexpr (ROWS)
            sum += softmax_row<1>(u, bias, targets, net.m, source, L::OUTPUTS, weight, factor, p, there ? u : 0);
        else if (there)
            for (int j = int(threadIdx.x); j < L::OUTPUTS; j += blockDim.x) {
                Pack<1> d = {};
                if (weight > Real(0)) {                 // a row without weight may hold anything
                    const Real v = FUSED ? u[j] + bias[j] : u[j];
                    const Real y = targets.at<1>(net.m, source, j, L::OUTPUTS).v[0];
                    sum += weight * Form::l(v, y, p);
                    d.v[0] = weight * factor * Form::dl(v, y, p);
                }
                if constexpr (!FUSED)
                    d = derive<L, 1>(net, d, row * L::LEAD + j,
                                     (long long)(tile.first + row) * L::OUTPUTS + j, slope);
                u[j] = d.v[0];
            }
    }
    return sum;
}

// (10)-(13) of layers k..1: adds the tile's part to the gradient.
template<int k>
__device__ __forceinline__ void backward(const Network& net, Tile tile, Real (&slope)[LAYERS + 1])
{
    typedef Layer<k> L;
    const Real* delta = net.memory + L::N;
    gradient_of_weights<L::OUTPUTS, L::INPUTS, L::LEAD, L::IN_LEAD>(            // (12)
        delta, net.memory + L::X, net.g + L::W, tile.count, tile.first > 0);
    gradient_of_biases<L::OUTPUTS, L::LEAD>(delta, net.g + L::B, tile.count, tile.first > 0);
    if constexpr (k > 1) {
        typedef Layer<k - 1> Below;
        __syncthreads();                                // n^(k-1) has been read
        product_by_columns<TILE, L::INPUTS, L::OUTPUTS, L::LEAD, L::IN_LEAD>(
            delta, net.theta + L::W, tile.count, [&](int row, int column, auto d) {
                const int at = row * Below::LEAD + column;
                const long long element = (long long)(tile.first + row) * Below::OUTPUTS + column;
                store(net.memory + Below::N + at, derive<Below>(net, d, at, element, slope[k - 1]));
            });
        __syncthreads();
        backward<k - 1>(net, tile, slope);
    }
}

// The gradients of the learned slopes, from each thread's part.
template<int k>
__device__ __forceinline__ void finish_slopes(const Network& net, Real (&slope)[LAYERS + 1])
{
    typedef Layer<k> L;
    if constexpr (L::LEARNED) {
        Real sum[1] = {slope[k]};
        block_sums(sum);
        if (thread_in_block() == 0) net.g[L::SLOPE] = sum[0];
    }
    if constexpr (k < LAYERS) finish_slopes<k + 1>(net, slope);
}

// ---------------------------------------------------------------- the whole
struct Data {
    const int* order;                                   // of this network: the row of each position
    const Source* X;
    const Real* weight;                                 // of this network, or 0
    __device__ Real weight_of(int source) const
    {
        return source < 0 ? Real(0) : weight ? weight[source] : Real(1);
    }
};

// x, and where its rows come from; an index below 0 is padding, a row of zeros with weight 0.
__device__ __forceinline__ void gather(const Data& data, const int* index, Real* x, Tile tile,
                                       int* source, Real* weight)
{
    typedef Layer<1> L;
    constexpr int V = neighbours<L::INPUTS>(VEC), PACKS = L::INPUTS / V;
    constexpr int UNDER_WAY = sizeof(Real) == 4 ? 4 : 1;        // loads; float64 has no registers for more
    #pragma unroll UNDER_WAY
    for (int i = thread_in_block(); i < tile.count * PACKS; i += THREADS) {
        const int row = i / PACKS, column = i % PACKS * V, from = index[tile.first + row];
        Pack<V> pack = {};
        if (from >= 0) pack = load<V>(data.X + (long long)from * L::INPUTS + column);
        store<V>(x + row * L::IN_LEAD + column, pack);
    }
    for (int row = thread_in_block(); row < tile.count; row += THREADS) {
        source[row] = index[tile.first + row];
        weight[row] = data.weight_of(source[row]);
    }
}

// theta (M, SIZE), state buffers (M, SIZE) or 0; grid (M), blockDim.x: a power of two up to 32, the lanes that
// share a row of the output.  order (1 or M, ...): `positions` rows of an epoch, in batches of `batch`;
// x_stride, y_stride, weight_stride: from network to network, 0 if shared.  dropout (LAYERS + 1, M).
// The network's batches cursor, cursor + 1, ..., `steps` of them.  For the rest see `loss` and
// `prepare_update`; `penalised`: the noted loss has the penalties in it.
extern "C" __global__ void __launch_bounds__(THREADS, NETWORKS) train_persistent(
    Real* theta, STATE_PARAMETERS,
    const int* order, long long order_stride, long long positions, int batch,
    const Source* X, long long x_stride, const Real* weight, long long weight_stride,
    const int* labels, const Real* dense, long long y_stride, Real y_scale, Real y_shift,
    int mean, const Real* p, int penalised,
    const unsigned long long* seeds, const unsigned* dropout,
    const Real* hyper, const Real* rates, const long long* first_rate,
    long long* cursor, long long* t, long long* halted, Real* losses, Real* weights, Real* norm,
    Real* scalars, long long networks, long long noted_steps, long long steps)
{
    extern __shared__ __align__(16) Real memory[];
    __shared__ Real h[HYPERS], s[SCALARS], tile_weight[TILE];
    __shared__ int tile_source[TILE];
    __shared__ unsigned thresholds[LAYERS + 1];
    __shared__ long long now_t, now_halted;

    const long long m = blockIdx.x, begin = cursor[m];  // before the first barrier: its end changes
    const int thread = thread_in_block();
    Network net{memory, memory, memory + NUMBERS, memory + 2 * NUMBERS, m, seeds[m], thresholds, 0};
    const Data data{order + m * order_stride, X + m * x_stride, weight ? weight + m * weight_stride : 0};
    const Targets targets{labels, dense, y_stride, y_scale, y_shift};
    const StateBuffers global{{STATE_ARGUMENTS}};
    StateBuffers shared = {};
    Real* buffers[1 + IN_USE] = {theta};
    int next = 0;
    #pragma unroll
    for (int i = 0; i < STATE_BUFFERS; ++i)
        if (used(i)) {
            shared.at[i] = net.state + next * NUMBERS;
            buffers[++next] = global.at[i];
        }

    for (int i = thread; i < (2 + IN_USE) * NUMBERS; i += THREADS) memory[i] = Real(0);
    for (int i = thread; i < HYPERS; i += THREADS) h[i] = hyper[m * HYPERS + i];
    for (int i = thread; i < SCALARS; i += THREADS) s[i] = scalars[m * SCALARS + i];
    for (int i = thread; i <= LAYERS; i += THREADS) thresholds[i] = dropout[i * networks + m];
    if (thread == 0) {
        now_t = t[m];
        now_halted = halted[m];
    }
    __syncthreads();
    #pragma unroll
    for (int b = 0; b < 1 + IN_USE; ++b)                 // theta, and the state behind the gradient
        each_parameter<1>([&](int here, int there) {
            memory[(b ? 1 + b : 0) * NUMBERS + here] = buffers[b][m * SIZE + there];
        });
    __syncthreads();

    Real length = Real(0);
    long long step = begin;
    for (; step < begin + steps && now_halted == 0; ++step) {
        const long long start = step * batch;
        const int rows = int(positions - start < batch ? positions - start : batch);
        const int* index = data.order + start;
        net.step = unsigned(now_t);

        Real w_sum[1] = {};
        for (int row = thread; row < rows; row += THREADS) w_sum[0] += data.weight_of(index[row]);
        block_sums(w_sum);
        const Real factor = batch_factor(w_sum[0], mean);

        Real sums[3] = {}, slope[LAYERS + 1] = {};      // loss, squares of g, penalty
        for (Tile tile{0, 0}; tile.first < rows; tile.first += TILE) {
            tile.count = rows - tile.first < TILE ? rows - tile.first : TILE;
            gather(data, index, memory + Layer<1>::X, tile, tile_source, tile_weight);
            __syncthreads();
            forward<LAYERS>(net, tile);
            sums[0] += loss_and_delta(net, tile, Rows{tile_source, tile_weight}, targets, factor, p,
                                      slope[LAYERS]);
            __syncthreads();
            backward<LAYERS>(net, tile, slope);
            __syncthreads();                            // the tile's memory is free
        }
        finish_slopes<1>(net, slope);
        __syncthreads();

        for (int i = thread * VEC; i < NUMBERS; i += THREADS * VEC) {
            const Pack<VEC> g = load<VEC>(net.g + i), w = load<VEC>(net.theta + i);
            for (int v = 0; v < VEC; ++v) sums[1] += g.v[v] * g.v[v];
            if (penalised && i < DECAYED)
                for (int v = 0; v < VEC; ++v)
                    sums[2] += Real(0.5) * h[L2] * w.v[v] * w.v[v] + h[L1] * fabs(w.v[v]);
        }
        block_sums(sums);
        length = sqrt(sums[1]);
        if (thread == 0) {
            const Real value = sums[0] * factor;
            const bool counts = decide(value, w_sum[0], length, h, rates, first_rate[0], now_t, now_halted, s);
            const long long noted = step % noted_steps * networks + m;
            losses[noted] = value + (penalised ? decay_scale(h, w_sum[0]) * sums[2] : Real(0));
            weights[noted] = counts ? w_sum[0] : Real(0);
        }
        __syncthreads();

        const Step go = step_of(s, 0);
        if (go.go == Real(0)) continue;
        Rule rule;
        rule.begin(h, go, Real(now_t));
        bool all = true;
        for (int i = thread * VEC; i < NUMBERS; i += THREADS * VEC) {           // (14)(15)
            Pack<VEC> value = load<VEC>(net.theta + i);
            all &= move_pack(rule, value, load<VEC>(net.g + i), shared, i, Slice{go.lr, Real(i < DECAYED)});
            store<VEC>(net.theta + i, value);
        }
        if (!all) now_halted = now_t;
        __syncthreads();
    }

    // Of a network that is halted nothing counts any more.
    for (long long rest = step + thread; rest < begin + steps; rest += THREADS)
        losses[rest % noted_steps * networks + m] = weights[rest % noted_steps * networks + m] = Real(0);
    #pragma unroll
    for (int b = 0; b < 1 + IN_USE; ++b)
        each_parameter<1>([&](int here, int there) {
            buffers[b][m * SIZE + there] = memory[(b ? 1 + b : 0) * NUMBERS + here];
        });
    if (thread == 0) {
        if (step < begin + steps) s[GO] = Real(0);
        for (int i = 0; i < SCALARS; ++i) scalars[m * SCALARS + i] = s[i];
        t[m] = now_t;
        halted[m] = now_halted;
        cursor[m] = begin + steps;
        if (step > begin) norm[m] = length;
    }
}
