// The functions of kernels/shared on the host.  exp, log and their kin have no branches, calls or tables, so
// that the compiler makes vectors of the loops around them.  The C library's own vectors are not asked for:
// many have none (glibc before 2.35 on x86-64 and before 2.38 on aarch64, musl, macOS), and results would
// depend on its version.
//
// Errors are below 3 ulp, of pow(x, y) below 2 + |y log x| ulp.  Infinities, NaN and subnormal numbers come
// out as in the C library, but for pow, which is for x >= 0, and NaN where y is infinite or NaN.

#ifdef __FAST_MATH__
#error "-ffast-math: these functions add numbers so that rounding does what they want"
#endif

#define INLINE inline __attribute__((always_inline))

INLINE float sqrt(float a)                  { return __builtin_sqrtf(a); }
INLINE double sqrt(double a)                { return __builtin_sqrt(a); }
INLINE float fabs(float a)                  { return __builtin_fabsf(a); }
INLINE double fabs(double a)                { return __builtin_fabs(a); }
INLINE float rint(float a)                  { return __builtin_rintf(a); }
INLINE double rint(double a)                { return __builtin_rint(a); }
INLINE float copysign(float a, float b)     { return __builtin_copysignf(a, b); }
INLINE double copysign(double a, double b)  { return __builtin_copysign(a, b); }
INLINE float fma(float a, float b, float c)     { return __builtin_fmaf(a, b, c); }
INLINE double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }

template<class T> struct Ieee;

template<> struct Ieee<float> {
    typedef unsigned Bits;
    static constexpr int mantissa = 23, bias = 127;
    static constexpr Bits root_half = 0x3f3504f3;                   // the bits of sqrt(1/2)
    static constexpr float ln2_high = 0x1.62e3p-1f, ln2_low = 9.0580006145e-06f;    // its product with k is exact
    static constexpr float steps = 0x1.8p23f;                       // added, it leaves whole numbers
    static constexpr float tiny = 0x1p-126f, enlarge = 0x1p24f, enlarged = 24.0f;
    static constexpr float far = 170.0f;                            // where e^x is 0 or infinite
};

template<> struct Ieee<double> {
    typedef unsigned long long Bits;
    static constexpr int mantissa = 52, bias = 1023;
    static constexpr Bits root_half = 0x3fe6a09e667f3bcd;
    static constexpr double ln2_high = 0x1.62e42feep-1, ln2_low = 1.90821492927058770002e-10;
    static constexpr double steps = 0x1.8p52;
    static constexpr double tiny = 0x1p-1022, enlarge = 0x1p54, enlarged = 54.0;
    static constexpr double far = 1400.0;
};

template<class T> INLINE typename Ieee<T>::Bits bits_of(T a)
{
    typename Ieee<T>::Bits bits;
    __builtin_memcpy(&bits, &a, sizeof a);
    return bits;
}

template<class T> INLINE T of_bits(typename Ieee<T>::Bits bits)
{
    T a;
    __builtin_memcpy(&a, &bits, sizeof a);
    return a;
}

// condition ? a : b, which is no branch whatever the compiler knows of a and b.
template<class T> INLINE T choose(bool condition, T a, T b)
{
    const typename Ieee<T>::Bits mask = -typename Ieee<T>::Bits(condition);
    return of_bits<T>((bits_of(a) & mask) | (bits_of(b) & ~mask));
}

// c[0] + c[1] x + c[2] x² + ...
template<class T> INLINE T polynomial(T, T last) { return last; }
template<class T, class... Rest> INLINE T polynomial(T x, T first, Rest... rest)
{
    return first + x * polynomial(x, rest...);
}

// ---------------------------------------------------------------- e^x
// Polynomials without a source are minimax, by Remez's exchange.

// (e^r - 1 - r) / r² for |r| <= ln(2) / 2.
INLINE float exp_rest(float r)
{
    return polynomial(r, 0.500000009537f, 0.166665186045f, 0.0416662054226f, 0.00836891778221f, 0.00139505133824f);
}

INLINE double exp_rest(double r)
{
    return polynomial(r, 0.50000000000000127919, 0.16666666666666699191, 0.041666666666514938014,
        0.008333333333307123607, 0.0013888888947154562558, 0.00019841269917564240876,
        0.00002480148978724588021, 2.7557216135960800005e-6, 2.7631339257254871573e-7,
        2.5117914145925392636e-8);
}

template<class T> INLINE T whole(T a)       { return (a + Ieee<T>::steps) - Ieee<T>::steps; }

// 2^k of a whole number that is the exponent of a normal one.
template<class T> INLINE T power_of_two(T k)
{
    return of_bits<T>((bits_of(k + Ieee<T>::steps) + Ieee<T>::bias) << Ieee<T>::mantissa);
}

// e^x = 2^first 2^second (1 + rest): 2^(first + second) may be no normal number.
template<class T> struct Power { T first, second, rest; };

template<class T> INLINE Power<T> reduced(T x)
{
    constexpr T far = Ieee<T>::far;
    const T near = choose(x < -far, -far, choose(x > far, far, x));
    const T k = whole(near * T(1.4426950408889634)), first = whole(k * T(0.5));
    const T r = near - k * Ieee<T>::ln2_high - k * Ieee<T>::ln2_low;
    return {first, k - first, r + r * r * exp_rest(r)};
}

template<class T> INLINE T exp(T x)
{
    const Power<T> e = reduced(x);
    return (T(1) + e.rest) * power_of_two(e.first) * power_of_two(e.second);
}

template<class T> INLINE T expm1(T x)
{
    const Power<T> e = reduced(x);
    const T first = power_of_two(e.first);
    return (first * e.rest + (first - power_of_two(-e.second))) * power_of_two(e.second);
}

template<class T> INLINE T tanh(T x)
{
    const T a = fabs(x), e = expm1(choose(a > T(22), T(44), T(2) * a));
    return copysign(e / (e + T(2)), x);
}

// ---------------------------------------------------------------- log x
// With x = 2^k (1 + f), sqrt(1/2) <= 1 + f < sqrt(2), and s = f / (2 + f): fdlibm's
// log(1 + f) = f - f²/2 + s (f²/2 + R(s²)).
INLINE float log_rest(float z)
{
    return z * polynomial(z, 0.66666662693f, 0.40000972152f, 0.28498786688f, 0.24279078841f);
}

INLINE double log_rest(double z)
{
    return z * polynomial(z, 6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01,
        2.222219843214978396e-01, 1.818357216161805012e-01, 1.531383769920937332e-01,
        1.479819860511658591e-01);
}

template<class T> INLINE T log(T x)
{
    typedef Ieee<T> I;
    typedef typename I::Bits Bits;
    constexpr Bits one = Bits(I::bias) << I::mantissa;
    constexpr T unit = T(Bits(1) << I::mantissa);                   // its lowest bit counts 1
    const bool small = x < I::tiny;
    const Bits bits = bits_of(choose(small, x * I::enlarge, x)) + (one - I::root_half);
    const T exponent = of_bits<T>((bits >> I::mantissa) | bits_of(unit)) - (unit + T(I::bias));
    const T k = exponent - choose(small, I::enlarged, T(0));
    const T f = of_bits<T>((bits & ((Bits(1) << I::mantissa) - 1)) + I::root_half) - T(1);
    const T s = f / (T(2) + f), half_square = T(0.5) * f * f;
    const T value = k * I::ln2_high - ((half_square - (s * (half_square + log_rest(s * s)) + k * I::ln2_low)) - f);
    const T infinity = T(__builtin_inf());
    return choose(x > T(0), choose(x < infinity, value, x), choose(x == T(0), -infinity, T(__builtin_nan(""))));
}

template<class T> INLINE T log1p(T x)
{
    const T u = T(1) + x, lost = choose(x < T(1), x - (u - T(1)), T(1) - (u - x));
    return log(u) + choose((u > T(0)) & (u < T(__builtin_inf())), lost / u, T(0));
}

// x >= 0.
INLINE double pow(double x, double y)   { return choose(y == 0.0, 1.0, exp(y * log(x))); }
INLINE float pow(float x, float y)      { return float(pow(double(x), double(y))); }

// ---------------------------------------------------------------- erf x
// erf(x) / x - 1 in x², |x| <= 1, and e^(x²) (1 - erf(x)) in 1 / (1 + x/2), x >= 1.
INLINE float erf_near(float s)
{
    return polynomial(s, 0.128379165914f, -0.376126271364f, 0.112836001796f, -0.0268544446784f,
        0.00518953542459f, -0.000802084151825f, 7.88911907209e-5f);
}

INLINE double erf_near(double s)
{
    return polynomial(s, 0.12837916709551256679, -0.37612638903183546628, 0.11283791670945253232,
        -0.026866170643276218303, 0.0052239776074234678405, -0.00085483259896967580333,
        0.00012055295320494294236, -0.000014924744663335489733, 1.6447517677871873706e-6,
        -1.6209175911748695663e-7, 1.372297626592450327e-8, -7.8011888740977515657e-10);
}

INLINE float erf_far(float w)
{
    return polynomial(w, 0.00182247360784f, 0.259700685504f, 0.396801821762f, -0.0644601881184f,
        0.636679643757f, -0.230801539438f);
}

INLINE double erf_far(double w)
{
    return polynomial(w, 0.000028564857428387893857, 0.28147207543001192917, 0.2882183237730063104,
        0.21112439889128485617, 0.31251615940129378689, -0.26821315994271629827,
        0.60648362802844489901, -0.71999948502340361802, 0.28578541866324639519,
        0.07893165267728429948, -0.10076404271540339303, 0.024418749472933943009);
}

template<class T> INLINE T erf(T x)
{
    const T a = fabs(x), s = x * x;
    const T far = T(1) - exp(-s) * erf_far(T(1) / (T(1) + T(0.5) * a));
    return choose(a < T(1), x + x * erf_near(s), copysign(far, x));
}
