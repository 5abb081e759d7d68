"""The program texts of the samples, each right as it stands."""

COLUMN_SUM = """
// out[j] = sum over i of x[i][j]
extern "C" __global__ void column_sum(const float* x, float* out, int rows, int columns)
{
    __shared__ float tile[8][33];
    int j = blockIdx.x * 32 + threadIdx.x;
    float sum = 0.f;
    if (j < columns)
        for (int i = threadIdx.y; i < rows; i += 8) sum += x[i * columns + j];
    tile[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();                                             // stored
    for (int half = 4; half; half >>= 1) {
        if (threadIdx.y < half)
            tile[threadIdx.y][threadIdx.x] += tile[threadIdx.y + half][threadIdx.x];
        __syncthreads();                                         // halved
    }
    if (threadIdx.y == 0 && j < columns) out[j] = tile[0][threadIdx.x];
}
"""

GATHER = """
// out[r] = x[index[r]]; the block's indices lie in dynamic shared memory
extern "C" __global__ void gather(const double* x, const int* index, double* out,
                                  int rows, int columns)
{
    extern __shared__ int picked[];
    int first = blockIdx.x * blockDim.y, t = threadIdx.y * blockDim.x + threadIdx.x;
    if (t < blockDim.y && first + t < rows) picked[t] = index[first + t];
    __syncthreads();
    int r = first + threadIdx.y;
    if (r >= rows) return;
    for (int j = threadIdx.x; j < columns; j += blockDim.x)
        out[(long long)r * columns + j] = x[(long long)picked[threadIdx.y] * columns + j];
}
"""

SOFTMAX = """
__device__ float warp_max(float value)
{
    for (int offset = 16; offset; offset >>= 1)
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
    return value;
}
__device__ float warp_sum(float value)
{
    for (int offset = 16; offset; offset >>= 1)
        value += __shfl_xor_sync(0xffffffffu, value, offset);
    return value;
}
// In place, a warp for each row; sum[r] is the first element's numerator over its result.
extern "C" __global__ void softmax(float* x, float* sum, int rows, int columns)
{
    int lane = threadIdx.x & 31, r = (blockIdx.x * blockDim.x + threadIdx.x) >> 5;
    if (r >= rows) return;
    float* row = x + (long long)r * columns;
    float largest = -3.4e38f;
    for (int j = lane; j < columns; j += 32) largest = fmaxf(largest, row[j]);
    largest = warp_max(largest);
    float total = 0.f;
    for (int j = lane; j < columns; j += 32) total += expf(row[j] - largest);
    total = warp_sum(total);
    float first = row[0];
    __syncwarp();
    for (int j = lane; j < columns; j += 32) row[j] = expf(row[j] - largest) / total;
    if (lane == 5) sum[r] = expf(first - largest);
}
"""

LANES = """
struct alignas(16) Best { float value; int lane; long long pad; };

// Every form of exchange between lanes; 32 threads.
extern "C" __global__ void lanes(const int* x, int* out, double* wide, unsigned* votes)
{
    int t = threadIdx.x;
    int* row = out + t * 8;
    row[0] = __shfl_sync(0xffffffffu, x[t], 3);
    row[1] = __shfl_sync(0xffffffffu, x[t], 5, 4);
    row[2] = __shfl_xor_sync(0xffffffffu, x[t], 1, 8);
    row[3] = __shfl_xor_sync(0xffffffffu, x[t], 16, 8);
    row[4] = __shfl_down_sync(0xffffffffu, x[t], 2, 8);
    row[5] = __shfl_up_sync(0xffffffffu, x[t], 2, 8);
    row[6] = t < 16 ? __shfl_xor_sync(0x0000ffffu, x[t], 1) : __shfl_xor_sync(0xffff0000u, x[t], 2);
    row[7] = __all_sync(0xffffffffu, t < 32) + 2 * __any_sync(0xffffffffu, t == 40);
    wide[t] = __shfl_down_sync(0xffffffffu, 1.0 / (t + 1), 1);
    unsigned ballot = __ballot_sync(0xffffffffu, x[t] > 0);
    if (t == 0) *votes = ballot;
}

// A reduction through a shared array of structs.
extern "C" __global__ void best(const float* x, Best* result)
{
    static constexpr int threads = 64;
    __shared__ Best candidates[threads], unused;
    int t = threadIdx.x;
    candidates[t] = Best{x[t], t, 0};
    __syncthreads();
    for (int half = threads / 2; half; half /= 2) {
        if (t < half && candidates[t + half].value > candidates[t].value)
            candidates[t] = candidates[t + half];
        __syncthreads();
    }
    if (t == 0) *result = candidates[0];
}
"""

AXPY = """
// y += a x; 128 bits at a time, then the tail
extern "C" __global__ void __launch_bounds__(256) axpy(const float* x, float* y, long long size,
                                                       float a)
{
    long long step = (long long)gridDim.x * blockDim.x, vectors = size / 4;
    long long t = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    for (long long i = t; i < vectors; i += step) {
        float4 u = reinterpret_cast<const float4*>(x)[i], v = reinterpret_cast<float4*>(y)[i];
        v.x += a * u.x; v.y += a * u.y; v.z += a * u.z; v.w += a * u.w;
        reinterpret_cast<float4*>(y)[i] = v;
    }
    for (long long i = vectors * 4 + t; i < size; i += step) y[i] += a * x[i];
}
"""

TRANSPOSE = """
// One 4 x 4 matrix, through shared memory that is read 128 bits at a time; 16 threads.
extern "C" __global__ void transpose(const float* x, float4* out)
{
    __shared__ alignas(16) float tile[16];
    int t = threadIdx.x;
    tile[(t % 4) * 4 + t / 4] = x[t];
    __syncthreads();
    if (t < 4) out[t] = reinterpret_cast<float4*>(tile)[t];
}
"""

LAST_BLOCK = """
// The last block to finish adds what the others left: total is left by one thread of each block,
// columns by all of them. who is the last block.
extern "C" __global__ void last_block(const float* x, float* partial, float* spread,
                                      unsigned* tickets, float* total, float* columns, int* who)
{
    __shared__ bool last;
    const int t = threadIdx.x, b = blockIdx.x, threads = blockDim.x, blocks = gridDim.x;
    spread[b * threads + t] = x[b * threads + t];
    __threadfence();                                      // by every thread
    __syncthreads();
    if (t == 0) {
        float sum = 0.f;
        for (int i = 0; i < threads; ++i) sum += x[b * threads + i];
        partial[b] = sum;
        __threadfence();                                  // by the one that wrote
        last = atomicAdd(tickets, 1u) == blocks - 1;
        __threadfence();                                  // by the one that counted
    }
    __syncthreads();
    if (!last) return;
    float sum = 0.f;
    for (int i = 0; i < blocks; ++i) sum += spread[i * threads + t];
    columns[t] = sum;
    if (t == 0) {
        sum = 0.f;
        for (int i = 0; i < blocks; ++i) sum += partial[i];
        *total = sum;
        *who = b;
        *tickets = 0;
    }
}
"""

INTEGERS = """
// A histogram and extremes by atomics; x has 32 bits.
extern "C" __global__ void integers(const unsigned* x, long long size, unsigned* histogram,
                                    unsigned long long* total, int* largest, unsigned* high)
{
    __shared__ unsigned counts[4];
    if (threadIdx.x < 4) counts[threadIdx.x] = 0;
    __syncthreads();
    long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += step) {
        atomicAdd(&counts[x[i] >> 30], 1u);
        atomicAdd(total, (unsigned long long)x[i]);
        atomicMax(largest, int(x[i] >> 1));
        high[i] = __umulhi(x[i], 0xD2511F53u);
    }
    __syncthreads();
    if (threadIdx.x < 4) atomicAdd(&histogram[threadIdx.x], counts[threadIdx.x]);
}
"""
