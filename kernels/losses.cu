// Equation (7) and its derivative in one pass: L = sum_i w_i sum_j l(u_ij, y_ij) for each network,
// and delta^(K) (or dL/dŷ, where the output activation is applied by `backprop`).
//
// Bytes per element: reads u and, unless the targets are labels, y; writes delta: 1 or 2 Reals and
// 1 Delta, 8 or 12 bytes in float32 (6 or 10 with delta in bfloat16).
//
// `Form` (a struct of losses.cuh), ROWS, LOG_U and Delta, the type of delta, are defined before this
// text.

struct Targets {
    const int* labels;          // (1 or M, B), or 0
    const Real* dense;          // (1 or M, B, N), or 0
    long long stride;           // from network to network; 0: shared
    Real scale, shift;          // y enters as scale y + shift

    __device__ Real at(long long network, long long row, int column, int columns) const
    {
        Real y;
        if (!labels) y = dense[network * stride + row * columns + column];
        else if (columns == 1) y = Real(labels[network * stride + row]);
        else y = Real(labels[network * stride + row] == column);
        return scale * y + shift;
    }
};

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

// 1 / sum of weights for the mean, 1 for the sum; 0 for a batch without weight.
__device__ __forceinline__ Real batch_factor(Real w_sum, int mean)
{
    return w_sum == Real(0) ? Real(0) : mean ? Real(1) / w_sum : Real(1);
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

// The softmax family: log p = z - log sum e^z, q = dl/d log p, delta = w / sum w (q - p sum q).
// blockDim.x lanes (a power of two up to 32) share a row; every lane takes part in each shuffle.
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
        const int size = weight > Real(0) ? columns : 0;    // a row without weight may hold anything
        const long long offset = (at.network * rows + row) * columns;

        Real top = Lowest<Real>::value;
        for (int j = int(threadIdx.x); j < size; j += blockDim.x) top = fmax(top, u[offset + j] + bias[j]);
        top = row_max(top);
        Real total = Real(0);
        for (int j = int(threadIdx.x); j < size; j += blockDim.x) total += exp(u[offset + j] + bias[j] - top);
        const Real log_total = top + log(row_sum(total));

        Real q_sum = Real(0);
        for (int j = int(threadIdx.x); j < size; j += blockDim.x) {
            const Real log_p = u[offset + j] + bias[j] - log_total, prob = exp(log_p);
            const Real y = targets.at(at.network, row, j, columns), v = LOG_U ? log_p : prob;
            sum += weight * Form::l(v, y, p);
            q_sum += Form::dl(v, y, p) * (LOG_U ? Real(1) : prob);
        }
        q_sum = row_sum(q_sum);
        if (!delta || row >= rows) continue;
        for (int j = int(threadIdx.x); j < columns; j += blockDim.x) {
            Real d = Real(0);
            if (size) {
                const Real log_p = u[offset + j] + bias[j] - log_total, prob = exp(log_p);
                const Real y = targets.at(at.network, row, j, columns), v = LOG_U ? log_p : prob;
                d = weight * factor * (Form::dl(v, y, p) * (LOG_U ? Real(1) : prob) - prob * q_sum);
            }
            delta[offset + j] = Delta(d);
        }
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
