// What stands around a loss's form: the targets, the batch's weight, and the softmax family's row.
//
// `Form` (a struct of losses.cuh) and LOG_U are defined before this text.

struct Targets {
    const int* labels;          // (1 or M, B), or 0
    const Real* dense;          // (1 or M, B, N), or 0
    long long stride;           // from network to network; 0: shared
    Real scale, shift;          // y enters as scale y + shift

    // Of V neighbouring columns.
    template<int V>
    __device__ __forceinline__ Pack<V> at(long long network, long long row, int column, int columns) const
    {
        Pack<V> y;
        if (!labels) y = load<V>(dense + network * stride + row * columns + column);
        else {
            const int label = labels[network * stride + row];
            #pragma unroll
            for (int v = 0; v < V; ++v) y.v[v] = columns == 1 ? Real(label) : Real(label == column + v);
        }
        #pragma unroll
        for (int v = 0; v < V; ++v) y.v[v] = scale * y.v[v] + shift;
        return y;
    }
};

// 1 / sum of weights for the mean, 1 for the sum; 0 for a batch without weight.
__device__ __forceinline__ Real batch_factor(Real w_sum, int mean)
{
    return w_sum == Real(0) ? Real(0) : mean ? Real(1) / w_sum : Real(1);
}

// The softmax family: log p = z - log sum e^z, q = dl/d log p, delta = w / sum w (q - p sum q), for one
// row of z = u + bias, shared by blockDim.x lanes (a power of two up to 32), which take V columns at a time:
// every lane of the warp takes part in each shuffle.  Returns the lane's part of w l.  delta may be u, or 0.
template<int V, class Delta>
__device__ __forceinline__ Real softmax_row(const Real* u, const Real* bias, const Targets& targets,
    long long network, long long row, int columns, Real weight, Real factor, const Real* p, Delta* delta)
{
    const int size = weight > Real(0) ? columns : 0;    // a row without weight may hold anything
    const int first = int(threadIdx.x) * V, step = int(blockDim.x) * V;
    Real top = Lowest<Real>::value;
    for (int j = first; j < size; j += step) {
        const Pack<V> z = sum_at<V>(u + j, bias + j);
        #pragma unroll
        for (int v = 0; v < V; ++v) top = fmax(top, z.v[v]);
    }
    top = row_max(top);
    Real total = Real(0);
    for (int j = first; j < size; j += step) {
        const Pack<V> z = sum_at<V>(u + j, bias + j);
        #pragma unroll
        for (int v = 0; v < V; ++v) total += exp(z.v[v] - top);
    }
    const Real log_total = top + log(row_sum(total));

    Real sum = Real(0), q_sum = Real(0);
    for (int j = first; j < size; j += step) {
        const Pack<V> z = sum_at<V>(u + j, bias + j), y = targets.at<V>(network, row, j, columns);
        #pragma unroll
        for (int v = 0; v < V; ++v) {
            const Real log_p = z.v[v] - log_total, prob = exp(log_p), variable = LOG_U ? log_p : prob;
            sum += weight * Form::l(variable, y.v[v], p);
            q_sum += Form::dl(variable, y.v[v], p) * (LOG_U ? Real(1) : prob);
        }
    }
    q_sum = row_sum(q_sum);
    if (!delta) return sum;
    for (int j = first; j < columns; j += step) {
        Pack<V> d = {};
        if (size) {
            const Pack<V> z = sum_at<V>(u + j, bias + j), y = targets.at<V>(network, row, j, columns);
            #pragma unroll
            for (int v = 0; v < V; ++v) {
                const Real log_p = z.v[v] - log_total, prob = exp(log_p), variable = LOG_U ? log_p : prob;
                d.v[v] = weight * factor
                       * (Form::dl(variable, y.v[v], p) * (LOG_U ? Real(1) : prob) - prob * q_sum);
            }
        }
        store<V>(delta + j, d);
    }
    return sum;
}
