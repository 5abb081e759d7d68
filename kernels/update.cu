// Equations (14) and (15), and their descendants, over the flat buffer of all layers and networks.
//
// A buffer is (M, P), P a multiple of 128 bytes; the weights W, which penalties act on, come first and
// end at `decayed`.  First `advance` decides for each network whether and how far it moves, then one
// of the updates moves it.  gpumlp/optimizer.py lists the hyperparameters' columns; their numbers
// (LR, L1, ...) and those of the scalars (GO, ...) are defined before this text.
//
// Bytes per parameter: advance reads g: 1 Real; sgd 3 (5 with momentum), rmsprop 5 (7, centred 9),
// adam 7.

// The numbers of this step for one network, computed by the last block of `advance`.
struct Step { Real go, clip, lr, decay; };

__device__ __forceinline__ Step step_of(const Real* scalars, long long network)
{
    const Real* s = scalars + network * SCALARS;
    return Step{s[GO], s[CLIP_SCALE], s[RATE], s[DECAY_SCALE]};
}

// ||g|| of each network; then: does it move (finite loss and gradient, some weight, not halted), its
// step number t, and the scalars of the step.  The loss (with the penalty of theta, if theta is given)
// and the weight are noted in the epoch's tables.
// hyper (M, HYPERS); rates: the schedule's factors for the updates first[0], first[0] + 1, ..., or 0.
// cursor, t, halted (M); losses, weights (steps, M).  partial (2, M, chunks); arrived (M), all 0.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) advance(
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
    penalty = block_sum(penalty);
    Real* parts = partial + m * chunks;
    Real* penalties = partial + (networks + m) * chunks;
    if (thread_in_block() == 0) {
        parts[at.chunk] = squares;
        penalties[at.chunk] = penalty;
    }
    if (!last_block(arrived + m, chunks)) return;
    const Real length = sqrt(ordered_sum(parts, chunks));
    penalty = ordered_sum(penalties, chunks);
    if (thread_in_block() != 0) return;

    const bool counts = halted[m] == 0 && w_sum[m] != Real(0);
    const bool finite = isfinite(loss[m]) && isfinite(length) && w_sum[m] > Real(0);
    const long long noted = cursor[m] % steps * networks + m;
    const Real decay = h[DECAY_PER_WEIGHT] > Real(0) ? Real(1) / w_sum[m] : Real(1);
    losses[noted] = loss[m] + (theta ? decay * penalty : Real(0));
    weights[noted] = counts ? w_sum[m] : Real(0);
    norm[m] = length;
    cursor[m] += 1;

    Real* s = scalars + m * SCALARS;
    s[GO] = Real(counts && finite);
    if (!counts) return;
    if (!finite) {
        halted[m] = t[m] + 1;                           // sticky: the update skips it from now on
        return;
    }
    s[RATE] = h[LR] * (rates ? rates[t[m] - first_rate[0]] : Real(1));
    s[DECAY_SCALE] = decay;
    s[CLIP_SCALE] = h[CLIP_NORM] > Real(0) && length > h[CLIP_NORM] ? h[CLIP_NORM] / length : Real(1);
    t[m] += 1;
}

// 1 - beta^t without cancellation, from log beta.
__device__ __forceinline__ Real bias_correction(Real log_beta, Real t)
{
    return -expm1(t * log_beta);
}

// What a law of motion starts from: the network's hyperparameters, in registers, and its step.
struct Law {
    Real h[HYPERS];
    Step step;

    __device__ __forceinline__ void begin(const Real* hyper, const Step& now, Real)
    {
        #pragma unroll
        for (int i = 0; i < HYPERS; ++i) h[i] = hyper[i];
        step = now;
    }

    // The gradient with the penalties of (14) and (14'), where they act.
    __device__ __forceinline__ Real penalised(Real g, Real theta, bool decays) const
    {
        g *= step.clip;
        if (!decays) return g;
        const Real sign = Real(theta > Real(0)) - Real(theta < Real(0));
        return g + step.decay * (h[L2] * theta + h[L1] * sign);
    }
};

// One block works on a chunk of one network; `law` moves one parameter.
template<class Motion>
__device__ __forceinline__ void update_chunk(Motion law, Real* theta, const Real* g, const Real* scalars,
    const Real* hyper, const long long* t, long long size, long long decayed, int chunks)
{
    const Place at = place<1>(1, chunks);
    const Step step = step_of(scalars, at.network);
    if (step.go == Real(0)) return;
    law.begin(hyper + at.network * HYPERS, step, Real(t[at.network]));
    for (long long i = item(at); i < size / VEC; i += at.step * THREADS) {
        const long long offset = at.network * size + i * VEC;
        const bool decays = i * VEC < decayed;
        Pack<VEC> value = load<VEC>(theta + offset);
        const Pack<VEC> gradient = load<VEC>(g + offset);
        law.move(value, gradient, decays, offset);
        store<VEC>(theta + offset, value);
    }
}

// v <- mu v - lr g, theta <- theta + v (Nesterov: theta + mu v - lr g); without v: theta - lr g.
struct Sgd : Law {
    Real* velocity;             // or 0

    __device__ explicit Sgd(Real* velocity) : velocity(velocity) {}
    __device__ __forceinline__ void move(Pack<VEC>& theta, const Pack<VEC>& g, bool decays, long long offset) const
    {
        Pack<VEC> v = {};
        if (velocity) v = load<VEC>(velocity + offset);
        #pragma unroll
        for (int k = 0; k < VEC; ++k) {
            const Real down = step.lr * penalised(g.v[k], theta.v[k], decays);
            v.v[k] = h[MOMENTUM] * v.v[k] - down;                               // (14)(15)
            theta.v[k] += h[NESTEROV] > Real(0) ? h[MOMENTUM] * v.v[k] - down : v.v[k];
        }
        if (velocity) store<VEC>(velocity + offset, v);
    }
};

// s <- rho s + (1 - rho) g², u <- mu u - lr g / (sqrt(s - c²) + eps), theta <- theta + u, with
// c <- rho c + (1 - rho) g where centred, else 0.
struct RmsProp : Law {
    Real *square, *velocity, *centre;       // the last two may be 0

    __device__ RmsProp(Real* square, Real* velocity, Real* centre)
        : square(square), velocity(velocity), centre(centre) {}
    __device__ __forceinline__ void move(Pack<VEC>& theta, const Pack<VEC>& g, bool decays, long long offset) const
    {
        Pack<VEC> s = load<VEC>(square + offset), u = {}, c = {};
        if (velocity) u = load<VEC>(velocity + offset);
        if (centre) c = load<VEC>(centre + offset);
        #pragma unroll
        for (int k = 0; k < VEC; ++k) {
            const Real gk = penalised(g.v[k], theta.v[k], decays);
            s.v[k] = h[BETA2] * s.v[k] + h[REST2] * gk * gk;
            if (centre) c.v[k] = h[BETA2] * c.v[k] + h[REST2] * gk;
            const Real variance = s.v[k] - c.v[k] * c.v[k];
            const Real root = sqrt(variance > Real(0) ? variance : Real(0)) + h[EPSILON];
            u.v[k] = h[MOMENTUM] * u.v[k] - step.lr * gk / root;
            theta.v[k] += u.v[k];
        }
        store<VEC>(square + offset, s);
        if (velocity) store<VEC>(velocity + offset, u);
        if (centre) store<VEC>(centre + offset, c);
    }
};

// m <- beta1 m + (1 - beta1) g, v <- beta2 v + (1 - beta2) g², theta <- theta - a m / (sqrt(v) + e),
// a = lr sqrt(1 - beta2^t) / (1 - beta1^t), e = eps sqrt(1 - beta2^t), or eps alone (scikit-learn's);
// before it, decoupled: W <- W (1 - lr weight_decay).
struct Adam : Law {
    Real *first, *second;
    Real a, e, keep;

    __device__ Adam(Real* first, Real* second) : first(first), second(second) {}
    __device__ __forceinline__ void begin(const Real* hyper, const Step& now, Real t)
    {
        Law::begin(hyper, now, t);
        const Real root = sqrt(bias_correction(h[LOG_BETA2], t));
        a = step.lr * root / bias_correction(h[LOG_BETA1], t);
        e = h[EPSILON] * (h[EPSILON_CORRECTED] > Real(0) ? root : Real(1));
        keep = Real(1) - step.lr * h[WEIGHT_DECAY];
    }
    __device__ __forceinline__ void move(Pack<VEC>& theta, const Pack<VEC>& g, bool decays, long long offset) const
    {
        Pack<VEC> m = load<VEC>(first + offset), v = load<VEC>(second + offset);
        #pragma unroll
        for (int k = 0; k < VEC; ++k) {
            const Real gk = penalised(g.v[k], theta.v[k], decays);
            m.v[k] = h[BETA1] * m.v[k] + h[REST1] * gk;
            v.v[k] = h[BETA2] * v.v[k] + h[REST2] * gk * gk;
        }
        store<VEC>(first + offset, m);
        store<VEC>(second + offset, v);
        #pragma unroll
        for (int k = 0; k < VEC; ++k) {
            if (decays) theta.v[k] *= keep;
            theta.v[k] -= a * m.v[k] / (sqrt(v.v[k]) + e);
        }
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) update_sgd(
    Real* theta, const Real* g, Real* velocity, const Real* scalars, const Real* hyper,
    const long long* t, long long size, long long decayed, int chunks)
{
    update_chunk(Sgd(velocity), theta, g, scalars, hyper, t, size, decayed, chunks);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) update_rmsprop(
    Real* theta, const Real* g, Real* square, Real* velocity, Real* centre, const Real* scalars,
    const Real* hyper, const long long* t, long long size, long long decayed, int chunks)
{
    update_chunk(RmsProp(square, velocity, centre), theta, g, scalars, hyper, t, size, decayed, chunks);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) update_adam(
    Real* theta, const Real* g, Real* first, Real* second, const Real* scalars, const Real* hyper,
    const long long* t, long long size, long long decayed, int chunks)
{
    update_chunk(Adam(first, second), theta, g, scalars, hyper, t, size, decayed, chunks);
}
