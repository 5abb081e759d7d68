// Before (14) and (15), as prepare_update.cu has it; and the sum of the gradients of a batch's slices.
//
// The numbers of the hyperparameters' columns (LR, L1, ...), those of the scalars (GO, ...) and
// step.cuh come before this text.

struct Advance {
    const Real *g, *theta;                  // theta 0: no penalty in the loss
    Int decayed;
    const Real *loss, *w_sum, *hyper, *rates;   // rates may be 0
    const Int* first_rate;
    Int *cursor, *t, *halted;
    Real *losses, *weights, *norm, *scalars;
    double* parts;                          // (M, chunks, 2): squares of g, penalties
    Int networks, steps, steps_stride;      // of losses and weights: (steps, M), M every steps_stride
    Int size, chunks;                       // size is a multiple of 128 bytes
};

// Of `count` numbers, a multiple of LANES, the sum by add_term(sum, a): short sums in Real, theirs in
// double.
template<class F>
inline double long_sum(const Real* a, Int count, F add_term)
{
    double total = 0;
    for (Int first = 0; first < count; first += TILE) {
        const Int last = count - first < TILE ? count : first + TILE;
        Lanes even = all_lanes(Real(0)), odd = even;
        Int i = first;
        for (; i + LANES < last; i += 2 * LANES) {
            fold(even, a + i, add_term);
            fold(odd, a + i + LANES, add_term);
        }
        if (i < last) fold(even, a + i, add_term);
        total += double(across(even, add) + across(odd, add));
    }
    return total;
}

static double squares(const Real* a, Int count)
{
    return long_sum(a, count, [](Vector sum, Vector v) { return sum + v * v; });
}

static double absolutes(const Real* a, Int count)
{
    return long_sum(a, count, [](Vector sum, Vector v) { return sum + (v < 0 ? -v : v); });
}

// What is decided for each network once its sums are there.
extern "C" void prepare_update_end(const Advance& a, int = 0, int = 1)
{
    for (Int m = 0; m < a.networks; ++m) {
        const Real* h = a.hyper + m * HYPERS;
        double square = 0, penalty = 0;
        for (Int c = 0; c < a.chunks; ++c) {
            square += a.parts[2 * (m * a.chunks + c)];
            penalty += a.parts[2 * (m * a.chunks + c) + 1];
        }
        const Real length = sqrt(Real(square)), w_sum = a.w_sum[m];
        const Int noted = a.cursor[m] % a.steps * a.steps_stride + m;
        const bool counts = decide(a.loss[m], w_sum, length, h, a.rates, a.first_rate[0], a.t[m], a.halted[m],
                                   a.scalars + m * SCALARS);
        a.losses[noted] = a.loss[m] + (a.theta ? decay_scale(h, w_sum) * Real(penalty) : Real(0));
        a.weights[noted] = counts ? w_sum : Real(0);
        a.norm[m] = length;
        a.cursor[m] += 1;
    }
}

extern "C" void prepare_update(const Advance& a, int piece, int pieces)
{
    each_item(a.networks, a.chunks, a.size / LANES, piece, pieces, [&](const Part& part) {
        const Int m = part.network, first = part.first * LANES, last = part.last * LANES;
        const Real* h = a.hyper + m * HYPERS;
        double* parts = a.parts + 2 * (m * a.chunks + part.chunk);
        parts[0] = squares(a.g + m * a.size + first, last - first);
        parts[1] = 0;
        const Int end = last < a.decayed ? last : a.decayed;
        if (a.theta && first < end) {
            const Real* W = a.theta + m * a.size + first;
            if (h[L2] != Real(0)) parts[1] += 0.5 * h[L2] * squares(W, end - first);
            if (h[L1] != Real(0)) parts[1] += h[L1] * absolutes(W, end - first);
        }
    });
    if (pieces == 1) prepare_update_end(a);
}

struct AddUp {
    const Real* parts;                      // (count, size)
    Real* out;                              // (size)
    Int count, size, chunks;
};

extern "C" void add_up(const AddUp& a, int piece, int pieces)
{
    each_item(1, a.chunks, a.size, piece, pieces, [&](const Part& part) {
        for (Int i = part.first; i < part.last; ++i) a.out[i] = a.parts[i];
        for (Int c = 1; c < a.count; ++c)
            for (Int i = part.first; i < part.last; ++i) a.out[i] += a.parts[c * a.size + i];
    });
}
