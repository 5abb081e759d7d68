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

// Elementwise: delta = w / sum w * dl/du.  A block takes whole rows.
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
        for (int j = int(threadIdx.x); j < columns; j += blockDim.x) {
            const long long element = base + row * columns + j;
            Real d = Real(0);
            if (weight > Real(0)) {                     // a row without weight may hold anything
                const Real v = u[element] + (b ? b[at.network * b_stride + j] : Real(0));
                const Real y = targets.at(at.network, row, j, columns);
                sum += weight * Form::l(v, y, p);
                d = weight * factor * Form::dl(v, y, p);
            }
            if (delta) delta[element] = Delta(d);
        }
    }
    finish_loss(sum, factor, at, chunks, value, partial, arrived);
}

// The softmax family.  blockDim.x lanes (a power of two up to 32) share a row.
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
        sum += softmax_row(u + offset, bias, targets, at.network, row, columns, weight, factor, p,
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
    if constexpr (ROWS)
        loss_rows(u, b, b_stride, targets, w, w_stride, w_sum, mean, p, delta, value, partial, arrived,
                  rows, columns, chunks);
    else
        loss_elements(u, b, b_stride, targets, w, w_stride, w_sum, mean, p, delta, value, partial, arrived,
                      rows, columns, chunks);
}
