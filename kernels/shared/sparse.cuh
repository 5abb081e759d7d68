// The first layer of sparse rows, in CSR form: Z = X W^T and dL/dW^T = X^T delta, where W^T is stored
// (N_0, N_1), so that all units of a feature are neighbours.
//
// Units are the neighbouring units that one thread computes: a pack on a GPU; vectors on the CPU, or a number
// where they do not divide.  multiply_add(units, x, row) is units += x * row[0 ..].

__device__ __forceinline__ void multiply_add(Real& sum, Real x, const Real* row)
{
    sum += x * *row;
}

// The sum of values[j] times row columns[j] of W^T (every N_1 numbers), j = first .. last - 1, in this
// order; several rows are under way at once.
template<class Units, class Weight>
__device__ __forceinline__ Units row_product(const Real* values, const int* columns, long long first,
    long long last, const Weight* WT, long long units)
{
    Units sum = {};
    #pragma unroll 8
    for (long long j = first; j < last; ++j) multiply_add(sum, values[j], WT + columns[j] * units);
    return sum;
}

// Whose the gradient of a feature is, of so many shares: features that many rows have are spread.
__device__ __forceinline__ unsigned share_of(int column, unsigned shares)
{
    return __umulhi(unsigned(column) * 2654435761u, shares);        // Knuth's multiplicative hash
}
