// Equation (7) and its derivative in one pass: L = sum_i w_i sum_j l(u_ij, y_ij) for each network,
// and delta^(K) (or dL/dŷ, where the output activation is applied by `backprop`).
//
// Bytes per element: reads u and, unless the targets are labels, y; writes delta: 1 or 2 Reals and
// 1 Delta, 8 or 12 bytes in float32 (6 or 10 with delta in bfloat16).  The softmax family reads u three
// times more, and y once more (without delta u twice more), from the caches where its rows fit.
//
// `Form` (a struct of losses.cuh), ROWS, LOG_U, objective.cuh, and Delta, the type of delta, come before
// this text.

// The network's loss from its blocks' sums; the last block writes it.
__device__ __forceinline__ void finish_loss(Real sum, Real factor, const Place& at, int chunks,
                                            Real* value, Real* partial, unsigned* arrived)
{
    sum = block_sum(sum);
    Real* parts = partial + at.network * chunks;
    if (thread_in_block() == 0) parts[at.chunk] = sum;
    if (!last_block(arrived + at.network, chunks)) return;
    const Real total = ordered_sum(parts, chunks);
    if (thread_in_block() == 0) value[at.network] = total * factor;
}

// Elementwise: delta = w / sum w * dl/du.  A block takes whole rows, V columns at a time.
template<int V>
__device__ __forceinline__ void loss_elements(const Real* u, const Real* b, long long b_stride,
    Targets targets, const Real* w, long long w_stride, const Real* w_sum, int mean, const Real* p,
    Delta* delta, Real* value, Real* partial, unsigned* arrived, long long rows, int columns, int chunks)
{
    const Place at = place<1>(1, chunks);
    const long long base = at.network * rows * columns;
    const Real factor = batch_factor(w_sum[at.network], mean);
    Real sum = Real(0);
    for (long long row = at.row; row < rows; row += at.step) {
        const Real weight = w[at.network * w_stride + row];
        for (int j = int(threadIdx.x) * V; j < columns; j += blockDim.x * V) {
            const long long element = base + row * columns + j;
            Pack<V> d = {};
            if (weight > Real(0)) {                     // a row without weight may hold anything
                const Pack<V> y = targets.at<V>(at.network, row, j, columns);
                const Pack<V> variable = b ? sum_at<V>(u + element, b + at.network * b_stride + j)
                                           : load<V>(u + element);
                #pragma unroll
                for (int v = 0; v < V; ++v) {
                    sum += weight * Form::l(variable.v[v], y.v[v], p);
                    d.v[v] = weight * factor * Form::dl(variable.v[v], y.v[v], p);
                }
            }
            if (delta) store<V>(delta + element, d);
        }
    }
    finish_loss(sum, factor, at, chunks, value, partial, arrived);
}

// The softmax family.  blockDim.x lanes (a power of two up to 32) share a row.
template<int V>
__device__ __forceinline__ void loss_rows(const Real* u, const Real* b, long long b_stride,
    Targets targets, const Real* w, long long w_stride, const Real* w_sum, int mean, const Real* p,
    Delta* delta, Real* value, Real* partial, unsigned* arrived, long long rows, int columns, int chunks)
{
    const Place at = place<1>(1, chunks);
    const Real* bias = b + at.network * b_stride;
    const Real factor = batch_factor(w_sum[at.network], mean);
    Real sum = Real(0);
    for (long long first = at.row - threadIdx.y; first < rows; first += at.step) {
        const long long row = first + threadIdx.y;      // rows beyond the last take part in shuffles
        const Real weight = row < rows ? w[at.network * w_stride + row] : Real(0);
        const long long offset = (at.network * rows + row) * columns;
        sum += softmax_row<V>(u + offset, bias, targets, at.network, row, columns, weight, factor, p,
                           delta && row < rows ? delta + offset : 0);
    }
    finish_loss(sum, factor, at, chunks, value, partial, arrived);
}

// u (M, B, N): z without its bias (b given), or ŷ (b is 0).  w (1 or M, B); w_sum (M).
// delta (M, B, N) out, or 0; value (M) out.  partial (M, chunks); arrived (M), all 0.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) loss(
    const Real* u, const Real* b, long long b_stride,
    const int* labels, const Real* dense, long long y_stride, Real scale, Real shift,
    const Real* w, long long w_stride, const Real* w_sum, int mean, const Real* p,
    Delta* delta, Real* value, Real* partial, unsigned* arrived,
    long long rows, int columns, int chunks)
{
    const Targets targets{labels, dense, y_stride, scale, shift};
    const auto blocks = [&](auto pack) {
        constexpr int V = sizeof(pack) / sizeof(Real);
        if constexpr (ROWS)
            loss_rows<V>(u, b, b_stride, targets, w, w_stride, w_sum, mean, p, delta, value, partial,
                         arrived, rows, columns, chunks);
        else
            loss_elements<V>(u, b, b_stride, targets, w, w_stride, w_sum, mean, p, delta, value, partial,
                             arrived, rows, columns, chunks);
    };
    if (in_packs(columns, u, b, dense, delta)) blocks(Pack<VEC>{});
    else blocks(Pack<1>{});
}
