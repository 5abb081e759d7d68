// Products by the BLAS that NumPy has loaded: out <- op(a) op(b), for each network.
//
// `BlasInt`, the integer of its interface, is defined before this text.

enum { ROW_MAJOR = 101, AS_IT_IS = 111, TRANSPOSED = 112 };     // cblas.h

typedef void Blas(int order, int ta, int tb, BlasInt I, BlasInt J, BlasInt L, Real alpha, const Real* a,
                  BlasInt lda, const Real* b, BlasInt ldb, Real beta, Real* c, BlasInt ldc);

struct Gemm {
    Blas* blas;
    const Real* a;                          // I x L, or L x I where it is transposed
    Int a_stride;
    const Real* b;                          // L x J
    Int b_stride;
    Real* out;                              // I x J
    Int out_stride;
    Int networks, I, J, L, ta, tb;
};

// A piece is some columns of out.
extern "C" void gemm(const Gemm& g, int piece, int pieces)
{
    const Int first = g.J * piece / pieces, columns = g.J * (piece + 1) / pieces - first;
    for (Int m = 0; columns && m < g.networks; ++m)
        g.blas(ROW_MAJOR, g.ta ? TRANSPOSED : AS_IT_IS, g.tb ? TRANSPOSED : AS_IT_IS, g.I, columns, g.L, Real(1),
               g.a + m * g.a_stride, g.ta ? g.I : g.L, g.b + m * g.b_stride + first * (g.tb ? g.L : 1),
               g.tb ? g.L : g.J, Real(0), g.out + m * g.out_stride + first, g.J);
}
