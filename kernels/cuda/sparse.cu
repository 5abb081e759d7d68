// The products of a first layer whose rows x are sparse, in CSR form, with W^T (M, N_0, N_1).
//
// A row of a batch is a row of the data by its number: no non-zeros are copied.  Number -1 is a row of
// zeros.
//
// Bytes per non-zero, for each unit: sparse_product reads one Weight; sparse_gradient reads and writes
// one Real.
//
// Weight (of W^T), Stored (of z) and Delta are defined before this text, sparse.cuh too.

constexpr int WEIGHT_VEC = 16 / sizeof(Weight);         // elements of W^T in 128 bits
constexpr unsigned ALL = 0xffffffffu;                   // the lanes of a warp

template<int PACK>
__device__ __forceinline__ void multiply_add(Pack<PACK>& sum, Real x, const Weight* row)
{
    const Pack<PACK> weight = load<PACK>(row);
    #pragma unroll
    for (int v = 0; v < PACK; ++v) sum.v[v] += x * weight.v[v];
}

// A thread has PACK neighbouring units of the rows at.row, at.row + at.step, ...
template<int PACK>
__device__ __forceinline__ void product_tile(
    const Real* values, const int* columns, const long long* starts, const int* numbers,
    long long numbers_stride, const Weight* WT, long long WT_stride, Stored* Z,
    long long rows, int units, const Place& at)
{
    if (at.column >= units) return;
    const long long m = at.network;
    WT += m * WT_stride + at.column;
    Z += m * rows * units + at.column;
    for (long long row = at.row; row < rows; row += at.step) {
        const long long source = numbers ? numbers[m * numbers_stride + row] : row;
        Pack<PACK> z = {};
        if (source >= 0)
            z = row_product<Pack<PACK>>(values, columns, starts[source], starts[source + 1], WT, units);
        store<PACK>(Z + row * units, z);
    }
}

// Z (M, B, N_1) <- X W^T.  values, columns, starts (R + 1): X.  numbers: the row of X of each row, B every
// numbers_stride, or 0: row i is row i.  WT (M, N_0, N_1) every WT_stride.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) sparse_product(
    const Real* values, const int* columns, const long long* starts, const int* numbers,
    long long numbers_stride, const Weight* WT, long long WT_stride, Stored* Z,
    long long rows, int units, int tiles, int chunks)
{
    if (units % WEIGHT_VEC == 0)
        product_tile<WEIGHT_VEC>(values, columns, starts, numbers, numbers_stride, WT, WT_stride, Z,
                                 rows, units, place<WEIGHT_VEC>(tiles, chunks));
    else
        product_tile<1>(values, columns, starts, numbers, numbers_stride, WT, WT_stride, Z,
                        rows, units, place<1>(tiles, chunks));
}

// The gradient of the last batch <- 0, at the features that occurred in it: a warp looks at 32 of them
// at a time, and clears those together.  occurs (M, N_0) <- 0.  G (M, N_0, N_1) every G_stride.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) clear_gradient(
    unsigned char* occurs, Real* G, long long G_stride, long long features, int units, int chunks)
{
    const Place at = place<1>(1, chunks);
    const int lane = int(threadIdx.x);
    occurs += at.network * features;
    G += at.network * G_stride;
    for (long long first = 32 * at.row; first < features; first += 32 * at.step) {
        const long long feature = first + lane;
        const bool clear = feature < features && occurs[feature] != 0;
        if (clear) occurs[feature] = 0;
        for (unsigned left = __ballot_sync(ALL, clear); left; left &= left - 1) {
            Real* row = G + (first + __ffs(int(left)) - 1) * units;
            for (int unit = lane; unit < units; unit += 32) row[unit] = Real(0);
        }
    }
}

// G <- G + X^T delta: a warp has 32 units of the features of a share, and adds their non-zeros in the
// order of the batch's rows, so that no two threads meet.  occurs (M, N_0) <- 1 where there are any.
// delta (M, B, N_1).  Blocks of (32, warps): a warp for each share.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) sparse_gradient(
    const Real* values, const int* columns, const long long* starts, const int* numbers,
    long long numbers_stride, const Delta* delta, unsigned char* occurs, Real* G, long long G_stride,
    long long rows, long long features, int units, int tiles, int chunks)
{
    const Place at = place<1>(tiles, chunks);
    const long long m = at.network;
    const int lane = int(threadIdx.x), unit = at.column;
    const unsigned share = unsigned(at.row), shares = unsigned(at.step);
    occurs += m * features;
    delta += m * rows * units + unit;
    G += m * G_stride + unit;
    for (long long top = 0; top < rows; top += 32) {
        // Each lane looks up one of the next 32 rows, so that these loads do not wait for one another.
        const long long own = top + lane;
        const long long source = own >= rows ? -1 : numbers ? numbers[m * numbers_stride + own] : own;
        const long long begin = source < 0 ? 0 : starts[source], end = source < 0 ? 0 : starts[source + 1];
        for (int r = 0; r < 32 && top + r < rows; ++r) {
            const long long last = __shfl_sync(ALL, end, r);
            const Real d = unit < units ? Real(delta[(top + r) * units]) : Real(0);
            for (long long j = __shfl_sync(ALL, begin, r); j < last; j += 32) {
                const bool there = j + lane < last;
                const int column = there ? columns[j + lane] : 0;
                const Real value = there ? values[j + lane] : Real(0);
                for (unsigned left = __ballot_sync(ALL, there && share_of(column, shares) == share); left;
                     left &= left - 1) {
                    const int from = __ffs(int(left)) - 1;
                    const long long feature = __shfl_sync(ALL, column, from);
                    const Real x = __shfl_sync(ALL, value, from);
                    if (unit < units) G[feature * units] += x * d;
                    if (at.tile == 0 && lane == 0) occurs[feature] = 1;
                }
            }
        }
    }
}
