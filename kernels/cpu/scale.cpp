// W = V diag(s) and the gradients by V and s, as scale.cu has them.

struct Scale {
    const Real* V;                          // (M, I, J): I x J every V_stride
    Int V_stride;
    const Real* s;                          // (M, J): J every s_stride
    Int s_stride;
    Real* out;                              // (M, I, J): W of scale; of scale_gradient G, then dL/dV
    Int out_stride;
    Int networks, rows, columns, chunks;
    Real* ds;                               // (M, J): J every ds_stride
    Int ds_stride;
    Real* parts;                            // (M, chunks, J): sums over rows
};

inline void scale_row(const Real* V, const Real* s, Real* W, Int columns)
{
    #pragma GCC ivdep
    for (Int j = 0; j < columns; ++j) W[j] = V[j] * s[j];
}

inline void gradient_row(Real* G, const Real* V, const Real* s, Real* sum, Int columns)
{
    #pragma GCC ivdep
    for (Int j = 0; j < columns; ++j) {
        sum[j] += G[j] * V[j];
        G[j] *= s[j];
    }
}

extern "C" void scale(const Scale& a, int piece, int pieces)
{
    each_item(a.networks, a.chunks, a.rows, piece, pieces, [&](const Part& part) {
        const Int m = part.network;
        for (Int row = part.first; row < part.last; ++row) {
            const Int at = row * a.columns;
            scale_row(a.V + m * a.V_stride + at, a.s + m * a.s_stride, a.out + m * a.out_stride + at, a.columns);
        }
    });
}

// ds from the parts.
extern "C" void scale_gradient_end(const Scale& a, int = 0, int = 1)
{
    for (Int m = 0; m < a.networks; ++m) {
        const Real* parts = a.parts + m * a.chunks * a.columns;
        Real* ds = a.ds + m * a.ds_stride;
        for (Int j = 0; j < a.columns; ++j) ds[j] = parts[j];
        for (Int c = 1; c < a.chunks; ++c)
            for (Int j = 0; j < a.columns; ++j) ds[j] += parts[c * a.columns + j];
    }
}

extern "C" void scale_gradient(const Scale& a, int piece, int pieces)
{
    each_item(a.networks, a.chunks, a.rows, piece, pieces, [&](const Part& part) {
        const Int m = part.network;
        Real* sum = a.parts + (m * a.chunks + part.chunk) * a.columns;
        for (Int j = 0; j < a.columns; ++j) sum[j] = Real(0);
        for (Int row = part.first; row < part.last; ++row) {
            const Int at = row * a.columns;
            gradient_row(a.out + m * a.out_stride + at, a.V + m * a.V_stride + at, a.s + m * a.s_stride, sum,
                         a.columns);
        }
    });
    if (pieces == 1) scale_gradient_end(a);
}
