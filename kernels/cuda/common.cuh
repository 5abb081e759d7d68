// What every kernel shares: 128-bit packs, positions, reductions in a fixed order.
//
// `Real` is float or double, defined before this text.  Rows are samples; every array is (M, B, N):
// M networks, B rows, N columns, contiguous; a stride is in elements.
//
// No floating-point atomics: a sum over blocks is written as partial sums, which the last block to
// finish adds in the order of their index.  The result does not depend on who is last.

constexpr int VEC = 16 / sizeof(Real);                  // Reals in 128 bits
constexpr int THREADS = 256;                            // in every block of every kernel

// Blocks that an SM should hold at once.  Without this bound ptxas aims for more, and spills for it.
constexpr int BLOCKS = sizeof(Real) == 4 ? 3 : 2;

// V neighbours of an array, at most 256 bits: the widest access there is.
template<class T, int V> struct alignas(V * sizeof(T) < 32 ? V * sizeof(T) : 32) Neighbours { T v[V]; };

// V Reals in registers, whatever the array holds.
template<int V> using Pack = Neighbours<Real, V>;

// A load on its way, not yet converted: that would wait for it.
template<int V, class T> __device__ __forceinline__ Neighbours<T, V> fetch(const T* a)
{
    return *reinterpret_cast<const Neighbours<T, V>*>(a);
}

template<class T, int V> __device__ __forceinline__ Pack<V> to_real(const Neighbours<T, V>& fetched)
{
    Pack<V> pack;
    #pragma unroll
    for (int v = 0; v < V; ++v) pack.v[v] = Real(fetched.v[v]);
    return pack;
}

template<int V, class T> __device__ __forceinline__ Pack<V> load(const T* a)
{
    return to_real(fetch<V>(a));
}

template<int V> __device__ __forceinline__ void store(Real* a, const Pack<V>& pack)
{
    *reinterpret_cast<Pack<V>*>(a) = pack;
}

template<int V> __device__ __forceinline__ void store(Bf16* a, const Pack<V>& pack)
{
    if constexpr (V == 8)                               // 16-bit stores would not always be joined
        *reinterpret_cast<uint4*>(a) = uint4{bf16_pair(pack.v[0], pack.v[1]), bf16_pair(pack.v[2], pack.v[3]),
                                             bf16_pair(pack.v[4], pack.v[5]), bf16_pair(pack.v[6], pack.v[7])};
    else
        for (int v = 0; v < V; ++v) a[v] = Bf16(pack.v[v]);
}

// The sums of V neighbours of two arrays.
template<int V> __device__ __forceinline__ Pack<V> sum_at(const Real* a, const Real* b)
{
    Pack<V> sum = load<V>(a), more = load<V>(b);
    #pragma unroll
    for (int v = 0; v < V; ++v) sum.v[v] += more.v[v];
    return sum;
}

// Whether all rows of so many columns begin at 128 bits, and so can be moved by packs of VEC: these arrays
// may be the user's own, or parts of them.
template<class... T>
__device__ __forceinline__ bool in_packs(int columns, const T*... arrays)
{
    return columns % VEC == 0 && (reinterpret_cast<unsigned long long>(arrays) | ...) % 16 == 0;
}

// Every step-th pack of V neighbours from the first on, converted.  A thread's first store waits for
// up to four loads, of 128 bytes together, so that they are under way at once.
template<int V, class From, class To>
__device__ __forceinline__ void copy(const From* from, To* to, long long first, long long step, long long packs)
{
    constexpr int MOST = 128 / sizeof(Neighbours<From, V>), LOADS = MOST < 4 ? MOST : 4;
    from += first * V;
    to += first * V;
    long long left = packs - first;
    for (; left > (LOADS - 1) * step; left -= LOADS * step) {
        Neighbours<From, V> fetched[LOADS];
        #pragma unroll
        for (int k = 0; k < LOADS; ++k, from += step * V) fetched[k] = fetch<V>(from);
        #pragma unroll
        for (int k = 0; k < LOADS; ++k, to += step * V) store<V>(to, to_real(fetched[k]));
    }
    for (; left > 0; left -= step, from += step * V, to += step * V) store<V>(to, load<V>(from));
}

// ---------------------------------------------------------------- where a block works
// Blocks are numbered tile first, then chunk, then network.  Within a tile a thread owns V neighbouring
// columns; it takes the rows `row`, `row + step`, ...: the chunks take turns, so that no row is left
// out whatever their number.
struct Place {
    long long network, row, step;
    int tile, chunk, column;
};

template<int V>
__device__ __forceinline__ Place place(int tiles, int chunks)
{
    const unsigned block = blockIdx.x;                  // 32 bits: their division needs no call
    const unsigned row_of_tiles = block / unsigned(tiles);
    Place at;
    at.tile = int(block % unsigned(tiles));
    at.chunk = int(row_of_tiles % unsigned(chunks));
    at.network = row_of_tiles / unsigned(chunks);
    at.row = (long long)at.chunk * blockDim.y + threadIdx.y;
    at.step = (long long)chunks * blockDim.y;
    at.column = (at.tile * int(blockDim.x) + int(threadIdx.x)) * V;
    return at;
}

// ---------------------------------------------------------------- sums
__device__ __forceinline__ int thread_in_block()
{
    return int(threadIdx.y * blockDim.x + threadIdx.x);
}

// The first item of a thread where blocks have THREADS threads in a row; the next is step * THREADS on.
__device__ __forceinline__ long long item(const Place& at)
{
    return at.row * THREADS + threadIdx.x;
}

// The sum over the block's 256 threads, in a fixed order; valid in every thread.
__device__ __forceinline__ Real block_sum(Real value)
{
    constexpr int WARPS = THREADS / 32;
    __shared__ Real warps[WARPS];
    const int t = thread_in_block();
    for (int o = 16; o; o >>= 1) value += __shfl_xor_sync(0xffffffffu, value, o);
    __syncthreads();                                    // the array's last use is over
    if (t % 32 == 0) warps[t / 32] = value;
    __syncthreads();
    value = warps[t % WARPS];
    for (int o = WARPS / 2; o; o >>= 1) value += __shfl_xor_sync(0xffffffffu, value, o);
    return value;
}

// The sum of parts[0 .. count - 1] by one block, in a fixed order; valid in every thread.
__device__ __forceinline__ Real ordered_sum(const Real* parts, long long count)
{
    Real sum = Real(0);
    for (long long i = thread_in_block(); i < count; i += THREADS) sum += parts[i];
    return block_sum(sum);
}

// True in every thread of the last of `count` blocks to get here; what the others had written before
// is then visible.  The counter is left at 0, ready for the next launch.
__device__ __forceinline__ bool last_block(unsigned* arrived, unsigned count)
{
    __shared__ bool last;
    __threadfence();                                    // this thread's partial sums, before the count
    __syncthreads();
    if (thread_in_block() == 0) {
        last = atomicAdd(arrived, 1u) == count - 1;
        if (last) *arrived = 0;
        __threadfence();
    }
    __syncthreads();
    return last;
}

// ---------------------------------------------------------------- a row, shared by blockDim.x lanes
template<class T> struct Lowest;                        // where the search for a row's maximum begins
template<> struct Lowest<float>  { static constexpr float  value = -3.4e38f; };
template<> struct Lowest<double> { static constexpr double value = -1.79e308; };

// blockDim.x is a power of two up to 32; every lane of the warp takes part.
__device__ __forceinline__ Real row_max(Real v)
{
    for (int o = blockDim.x / 2; o; o >>= 1) v = fmax(v, __shfl_xor_sync(0xffffffffu, v, o));
    return v;
}

__device__ __forceinline__ Real row_sum(Real v)
{
    for (int o = blockDim.x / 2; o; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}
