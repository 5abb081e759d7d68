// Calls one after another, without Python between them; the pieces of a large call are shared among
// threads.  Which thread does which piece is decided here, and changes no result.
//
// To wake a thread takes as long as many a call.  So whoever has nothing left to do looks for more for a
// while before it sleeps; for longer it would rob others of a core, and BLAS's threads are such others.

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

typedef long long Int;

struct Call {
    void (*function)(const void* arguments, int piece, int pieces);
    const void* arguments;
    Int pieces;
};

// A call whose pieces are shared, one at a time, and the threads that help with it.
struct Team {
    Int open = 0;           // the number of the call, above that of its pieces nobody has claimed yet
    Int ended = 0;          // its pieces that helpers have ended
    const Call* call = nullptr;
    bool busy = false;
    Int helpers = 0, idle = 0;              // idle: those that sleep
    bool waits = false;                     // whoever shares the call sleeps
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t posted = PTHREAD_COND_INITIALIZER, done = PTHREAD_COND_INITIALIZER;
};

constexpr Int CALL = 1 << 16;               // more than pieces
constexpr Int LOOK = 100000;                // nanoseconds

// In a forked process the helpers do not exist, and another thread may have held the lock: it gets a
// team of its own.  None is ever destroyed, since helpers live as long as the process.
static Team* new_team()                     // `new` would need C++'s library
{
    Team* const team = static_cast<Team*>(malloc(sizeof(Team)));
    *team = Team();
    return team;
}

static Team* team = new_team();
static const int at_fork = pthread_atfork(nullptr, nullptr, [] { team = new_team(); });

template<class T> inline T look(const T& a) { return __atomic_load_n(&a, __ATOMIC_SEQ_CST); }
template<class T> inline void put(T& a, T value) { __atomic_store_n(&a, value, __ATOMIC_SEQ_CST); }

inline void rest()
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

static Int now()
{
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * Int(1000000000) + time.tv_nsec;
}

// Whether the condition holds before LOOK is over.
template<class Condition> static bool soon(Condition condition)
{
    for (const Int end = now() + LOOK; now() < end;)
        for (int turn = 0; turn < 16; ++turn, rest())
            if (condition()) return true;
    return false;
}

// One of the open call's pieces, for whoever claims it first; -1 if there is none.
static Int claim(Team& t)
{
    Int seen = look(t.open);
    while (seen % CALL)
        if (__atomic_compare_exchange_n(&t.open, &seen, seen - 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            return seen % CALL - 1;
    return -1;
}

static void* help(void* its)
{
    Team& t = *static_cast<Team*>(its);
    const auto open = [&t] { return look(t.open) % CALL != 0; };
    for (;;) {
        for (Int piece; (piece = claim(t)) >= 0;) {
            const Call& call = *t.call;     // which stays until this piece has ended
            call.function(call.arguments, int(piece), int(call.pieces));
            __atomic_add_fetch(&t.ended, 1, __ATOMIC_SEQ_CST);
            if (look(t.waits)) {
                pthread_mutex_lock(&t.lock);
                pthread_cond_signal(&t.done);
                pthread_mutex_unlock(&t.lock);
            }
        }
        if (soon(open)) continue;
        pthread_mutex_lock(&t.lock);
        put(t.idle, t.idle + 1);
        while (!open()) pthread_cond_wait(&t.posted, &t.lock);
        put(t.idle, t.idle - 1);
        pthread_mutex_unlock(&t.lock);
    }
    return nullptr;
}

// One more helper; false where no thread can be had.
static bool add_helper(Team& t)
{
    pthread_t thread;
    if (pthread_create(&thread, nullptr, help, &t)) return false;
    pthread_detach(thread);
    ++t.helpers;
    return true;
}

static void share(const Call& call)
{
    Team& t = *team;
    // Whoever finds the others at work, or is one of them, works alone.
    if (__atomic_exchange_n(&t.busy, true, __ATOMIC_SEQ_CST)) {
        for (Int piece = 0; piece < call.pieces; ++piece)
            call.function(call.arguments, int(piece), int(call.pieces));
        return;
    }
    while (t.helpers < call.pieces - 1 && add_helper(t)) {}
    t.call = &call;
    t.ended = 0;
    put(t.open, (look(t.open) / CALL + 1) * CALL + call.pieces);
    if (look(t.idle)) {
        pthread_mutex_lock(&t.lock);
        for (Int piece = 1; piece < call.pieces; ++piece) pthread_cond_signal(&t.posted);
        pthread_mutex_unlock(&t.lock);
    }
    Int theirs = call.pieces;
    for (Int piece; (piece = claim(t)) >= 0; --theirs)
        call.function(call.arguments, int(piece), int(call.pieces));
    const auto done = [&] { return look(t.ended) == theirs; };
    if (!soon(done)) {
        pthread_mutex_lock(&t.lock);
        put(t.waits, true);
        while (!done()) pthread_cond_wait(&t.done, &t.lock);
        put(t.waits, false);
        pthread_mutex_unlock(&t.lock);
    }
    put(t.busy, false);
}

struct Sequence {
    const Call* calls;
    Int count;
};

// A sequence may itself be the piece of a call.
extern "C" void run(const Sequence* sequences, int piece, int)
{
    const Sequence& own = sequences[piece];
    for (const Call* call = own.calls; call != own.calls + own.count; ++call)
        if (call->pieces > 1) share(*call);
        else call->function(call->arguments, 0, 1);
}
