// What stands around a loss's form: the targets, the batch's weight, and the softmax family's row.
//
// `Form` (a struct of losses.cuh) and LOG_U are defined before this text.

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

// 1 / sum of weights for the mean, 1 for the sum; 0 for a batch without weight.
__device__ __forceinline__ Real batch_factor(Real w_sum, int mean)
{
    return w_sum == Real(0) ? Real(0) : mean ? Real(1) / w_sum : Real(1);
}

// The softmax family: log p = z - log sum e^z, q = dl/d log p, delta = w / sum w (q - p sum q), for one
// row of z = u + bias, shared by blockDim.x lanes (a power of two up to 32): every lane of the warp takes
// part in each shuffle.  Returns the lane's part of w l.  delta may be u, or 0.
template<class Delta>
__device__ __forceinline__ Real softmax_row(const Real* u, const Real* bias, const Targets& targets,
    long long network, long long row, int columns, Real weight, Real factor, const Real* p, Delta* delta)
{
    const int size = weight > Real(0) ? columns : 0;    // a row without weight may hold anything
    Real top = Lowest<Real>::value;
    for (int j = int(threadIdx.x); j < size; j += blockDim.x) top = fmax(top, u[j] + bias[j]);
    top = row_max(top);
    Real total = Real(0);
    for (int j = int(threadIdx.x); j < size; j += blockDim.x) total += exp(u[j] + bias[j] - top);
    const Real log_total = top + log(row_sum(total));

    Real sum = Real(0), q_sum = Real(0);
    for (int j = int(threadIdx.x); j < size; j += blockDim.x) {
        const Real log_p = u[j] + bias[j] - log_total, prob = exp(log_p);
        const Real y = targets.at(network, row, j, columns), v = LOG_U ? log_p : prob;
        sum += weight * Form::l(v, y, p);
        q_sum += Form::dl(v, y, p) * (LOG_U ? Real(1) : prob);
    }
    q_sum = row_sum(q_sum);
    if (!delta) return sum;
    for (int j = int(threadIdx.x); j < columns; j += blockDim.x) {
        Real d = Real(0);
        if (size) {
            const Real log_p = u[j] + bias[j] - log_total, prob = exp(log_p);
            const Real y = targets.at(network, row, j, columns), v = LOG_U ? log_p : prob;
            d = weight * factor * (Form::dl(v, y, p) * (LOG_U ? Real(1) : prob) - prob * q_sum);
        }
        delta[j] = Delta(d);
    }
    return sum;
}
