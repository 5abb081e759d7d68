// Before (14) and (15): whether and how far each network moves, from the norm of its gradient.
//
// A buffer is (M, P), P a multiple of 128 bytes; the weights W, which penalties act on, come first and
// end at `decayed`.  The numbers of the hyperparameters' columns (LR, L1, ...), those of the scalars
// (GO, ...) and step.cuh come before this text.
//
// Bytes per parameter: g, and where penalties are noted the weights too: 1 Real, or 2.

// ||g|| of each network; then: does it move (finite loss and gradient, some weight, not halted), its
// step number t, and the scalars of the step.  The loss (with the penalty of theta, if theta is given)
// and the weight are noted in the epoch's tables.
// hyper (M, HYPERS); rates: the schedule's factors for the updates first[0], first[0] + 1, ..., or 0.
// cursor, t, halted (M); losses, weights (steps, M).  partial (2, M, chunks); arrived (M), all 0.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) prepare_update(
    const Real* g, const Real* theta, long long decayed,
    const Real* loss, const Real* w_sum, const Real* hyper, const Real* rates, const long long* first_rate,
    long long* cursor, long long* t, long long* halted, Real* losses, Real* weights, Real* norm,
    Real* scalars, Real* partial, unsigned* arrived,
    long long networks, long long steps, long long size, int chunks)
{
    const Place at = place<1>(1, chunks);
    const long long m = at.network;
    const Real* h = hyper + m * HYPERS;
    Real squares = Real(0), penalty = Real(0);
    #pragma unroll 4
    for (long long i = item(at); i < size / VEC; i += at.step * THREADS) {
        const Pack<VEC> four = load<VEC>(g + m * size + i * VEC);
        for (int v = 0; v < VEC; ++v) squares += four.v[v] * four.v[v];
        if (theta && i * VEC < decayed) {
            const Pack<VEC> w = load<VEC>(theta + m * size + i * VEC);
            for (int v = 0; v < VEC; ++v)
                penalty += Real(0.5) * h[L2] * w.v[v] * w.v[v] + h[L1] * fabs(w.v[v]);
        }
    }
    squares = block_sum(squares);
    if (theta) penalty = block_sum(penalty);
    Real* parts = partial + m * chunks;
    Real* penalties = partial + (networks + m) * chunks;
    if (thread_in_block() == 0) {
        parts[at.chunk] = squares;
        penalties[at.chunk] = penalty;
    }
    if (!last_block(arrived + m, chunks)) return;
    const Real length = sqrt(ordered_sum(parts, chunks));
    if (theta) penalty = ordered_sum(penalties, chunks);
    if (thread_in_block() != 0) return;

    const bool counts = decide(loss[m], w_sum[m], length, h, rates, first_rate[0], t[m], halted[m],
                               scalars + m * SCALARS);
    const long long noted = cursor[m] % steps * networks + m;
    losses[noted] = loss[m] + (theta ? decay_scale(h, w_sum[m]) * penalty : Real(0));
    weights[noted] = counts ? w_sum[m] : Real(0);
    norm[m] = length;
    cursor[m] += 1;
}
