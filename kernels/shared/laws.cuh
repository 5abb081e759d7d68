// The laws of motion: (14), (15) and their descendants, for one pack of neighbouring parameters.
//
// gpumlp/functions/optimizer.py lists the hyperparameters' columns; their numbers (LR, L1, ...) and those of the
// scalars (GO, ...) are defined before this text, as are Real, VEC and Pack.

// The numbers of this step for one network, computed by the last block of `prepare_update`.
struct Step { Real go, clip, lr, decay; };

__device__ __forceinline__ Step step_of(const Real* scalars, long long network)
{
    const Real* s = scalars + network * SCALARS;
    return Step{s[GO], s[CLIP_SCALE], s[RATE], s[DECAY_SCALE]};
}

// 1 - beta^t without cancellation, from log beta.
__device__ __forceinline__ Real bias_correction(Real log_beta, Real t)
{
    return -expm1(t * log_beta);
}

// Whether a parameter and its state can go where a law takes them.  What would overflow stays, so that
// the weights in place are finite ones, and a law's `move` returns whether all could go.
__device__ __forceinline__ bool finite(Real a, Real b, Real c = Real(0), Real d = Real(0))
{
    return isfinite(a) & isfinite(b) & isfinite(c) & isfinite(d);
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

// v <- mu v - lr g, theta <- theta + v (Nesterov: theta + mu v - lr g); without v: theta - lr g.
struct Sgd : Law {
    Real* velocity;             // or 0

    __device__ explicit Sgd(Real* velocity) : velocity(velocity) {}
    __device__ __forceinline__ bool move(Pack<VEC>& theta, const Pack<VEC>& g, bool decays, long long offset) const
    {
        bool all = true;
        Pack<VEC> v = {};
        if (velocity) v = load<VEC>(velocity + offset);
        #pragma unroll
        for (int k = 0; k < VEC; ++k) {
            const Real down = step.lr * penalised(g.v[k], theta.v[k], decays);
            const Real vk = h[MOMENTUM] * v.v[k] - down;                        // (14)(15)
            const Real moved = theta.v[k] + (h[NESTEROV] > Real(0) ? h[MOMENTUM] * vk - down : vk);
            const bool moves = finite(moved, vk);
            v.v[k] = moves ? vk : v.v[k];
            theta.v[k] = moves ? moved : theta.v[k];
            all &= moves;
        }
        if (velocity) store<VEC>(velocity + offset, v);
        return all;
    }
};

// s <- rho s + (1 - rho) g², u <- mu u - lr g / (sqrt(s - c²) + eps), theta <- theta + u, with
// c <- rho c + (1 - rho) g where CENTRED, else 0; without a velocity where not MOVING.
template<bool MOVING, bool CENTRED>
struct RmsProp : Law {
    Real *square, *velocity, *centre;

    __device__ RmsProp(Real* square, Real* velocity, Real* centre)
        : square(square), velocity(velocity), centre(centre) {}
    __device__ __forceinline__ bool move(Pack<VEC>& theta, const Pack<VEC>& g, bool decays, long long offset) const
    {
        bool all = true;
        Pack<VEC> s = load<VEC>(square + offset), u = {}, c = {};
        if (MOVING) u = load<VEC>(velocity + offset);
        if (CENTRED) c = load<VEC>(centre + offset);
        #pragma unroll
        for (int k = 0; k < VEC; ++k) {
            const Real gk = penalised(g.v[k], theta.v[k], decays);
            const Real sk = h[BETA2] * s.v[k] + h[REST2] * gk * gk;
            const Real ck = CENTRED ? h[BETA2] * c.v[k] + h[REST2] * gk : Real(0);
            const Real variance = sk - ck * ck;
            const Real root = sqrt(variance > Real(0) ? variance : Real(0)) + h[EPSILON];
            const Real uk = h[MOMENTUM] * u.v[k] - step.lr * gk / root;
            const Real moved = theta.v[k] + uk;
            const bool moves = finite(moved, uk, sk, ck);
            s.v[k] = moves ? sk : s.v[k];
            u.v[k] = moves ? uk : u.v[k];
            c.v[k] = moves ? ck : c.v[k];
            theta.v[k] = moves ? moved : theta.v[k];
            all &= moves;
        }
        store<VEC>(square + offset, s);
        if (MOVING) store<VEC>(velocity + offset, u);
        if (CENTRED) store<VEC>(centre + offset, c);
        return all;
    }
};

// use(law) for the RmsProp that has these slots; the last two may be 0.
template<class Use>
__device__ __forceinline__ void with_rmsprop(Real* square, Real* velocity, Real* centre, Use use)
{
    if (velocity && centre) use(RmsProp<true, true>(square, velocity, centre));
    else if (velocity) use(RmsProp<true, false>(square, velocity, centre));
    else if (centre) use(RmsProp<false, true>(square, velocity, centre));
    else use(RmsProp<false, false>(square, velocity, centre));
}

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
    __device__ __forceinline__ bool move(Pack<VEC>& theta, const Pack<VEC>& g, bool decays, long long offset) const
    {
        bool all = true;
        Pack<VEC> m = load<VEC>(first + offset), v = load<VEC>(second + offset);
        #pragma unroll
        for (int k = 0; k < VEC; ++k) {
            const Real gk = penalised(g.v[k], theta.v[k], decays);
            const Real mk = h[BETA1] * m.v[k] + h[REST1] * gk;
            const Real vk = h[BETA2] * v.v[k] + h[REST2] * gk * gk;
            const Real kept = decays ? theta.v[k] * keep : theta.v[k];
            const Real moved = kept - a * mk / (sqrt(vk) + e);
            const bool moves = finite(moved, mk, vk);
            m.v[k] = moves ? mk : m.v[k];
            v.v[k] = moves ? vk : v.v[k];
            theta.v[k] = moves ? moved : theta.v[k];
            all &= moves;
        }
        store<VEC>(first + offset, m);
        store<VEC>(second + offset, v);
        return all;
    }
};

// ---------------------------------------------------------------- before the step
// What the penalties are multiplied with: 1, or 1 / sum of weights.
__device__ __forceinline__ Real decay_scale(const Real* h, Real w_sum)
{
    return h[DECAY_PER_WEIGHT] > Real(0) ? Real(1) / w_sum : Real(1);
}

// Whether a network moves (finite loss and gradient, some weight, not halted), its step number t, and
// the scalars s of the step.  rates: the schedule's factors for the updates first_rate,
// first_rate + 1, ..., or 0.  Returns whether the batch counts: it has weight, and is not too late.
__device__ __forceinline__ bool decide(Real loss, Real w_sum, Real length, const Real* h,
    const Real* rates, long long first_rate, long long& t, long long& halted, Real* s)
{
    const bool counts = halted == 0 && w_sum != Real(0);
    const bool finite = isfinite(loss) && isfinite(length) && w_sum > Real(0);
    s[GO] = Real(counts && finite);
    if (!counts) return false;
    if (!finite) {
        halted = t + 1;                                 // sticky: the update skips it from now on
        return true;
    }
    s[RATE] = h[LR] * (rates ? rates[t - first_rate] : Real(1));
    s[DECAY_SCALE] = decay_scale(h, w_sum);
    s[CLIP_SCALE] = h[CLIP_NORM] > Real(0) && length > h[CLIP_NORM] ? h[CLIP_NORM] / length : Real(1);
    t += 1;
    return true;
}
