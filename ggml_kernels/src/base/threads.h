/*
 * What the pool needs from the system: POSIX threads, native Windows threads, so that no library has to be shipped, or
 * the workers of a web page (threads_wasm.h).
 * Include this header first: it defines the feature macros of the C library.
 */
#ifndef GENIE_THREADS_H
#define GENIE_THREADS_H

enum { STACK_BYTES = 4 << 20 }; /* kernels keep their scratch on the stack, and some C libraries give threads 128 KiB */

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

#include <process.h>

#define GENIE_THREAD unsigned __stdcall /* what a thread's function returns */

typedef HANDLE genie_thread;
typedef SRWLOCK genie_mutex;
typedef CONDITION_VARIABLE genie_condition;

/* Returns 1, or 0 if the system refuses; so do the next two. */
static inline int genie_thread_start(genie_thread *thread, unsigned(__stdcall *entry)(void *), void *argument) {
    *thread = (HANDLE)_beginthreadex(NULL, STACK_BYTES, entry, argument, STACK_SIZE_PARAM_IS_A_RESERVATION, NULL);
    return *thread != NULL;
}

static inline int genie_mutex_create(genie_mutex *mutex) {
    InitializeSRWLock(mutex);
    return 1;
}

static inline int genie_condition_create(genie_condition *condition) {
    InitializeConditionVariable(condition);
    return 1;
}

static inline void genie_thread_join(genie_thread thread) {
    WaitForSingleObject(thread, INFINITE);
    CloseHandle(thread);
}

/* CPUs that this process may run on; 1 if unknown. */
static inline int genie_cpus(void) {
    DWORD_PTR process, machine;
    int count = 0;
    if (GetProcessAffinityMask(GetCurrentProcess(), &process, &machine))
        for (; process; process &= process - 1)
            count++;
    return count > 0 ? count : 1;
}

static inline void genie_yield(void) { SwitchToThread(); }
static inline void genie_mutex_free(genie_mutex *mutex) { (void)mutex; }
static inline void genie_condition_free(genie_condition *condition) { (void)condition; }
static inline void genie_lock(genie_mutex *mutex) { AcquireSRWLockExclusive(mutex); }
static inline void genie_unlock(genie_mutex *mutex) { ReleaseSRWLockExclusive(mutex); }
static inline void genie_wake_all(genie_condition *condition) { WakeAllConditionVariable(condition); }
static inline void genie_wait(genie_condition *condition, genie_mutex *mutex) {
    SleepConditionVariableSRW(condition, mutex, INFINITE, 0);
}

#elif defined(__wasm__)
#include "threads_wasm.h"

#else
#if defined(__linux__)
#define _GNU_SOURCE /* for sched_getaffinity */
#elif defined(__APPLE__)
#define _DARWIN_C_SOURCE /* for _SC_NPROCESSORS_ONLN */
#else
#define _POSIX_C_SOURCE 200809L
#endif
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#define GENIE_THREAD void *

typedef pthread_t genie_thread;
typedef pthread_mutex_t genie_mutex;
typedef pthread_cond_t genie_condition;

static inline int genie_thread_start(genie_thread *thread, void *(*entry)(void *), void *argument) {
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0)
        return 0;
    (void)pthread_attr_setstacksize(&attributes, STACK_BYTES); /* if refused, the default may still be enough */
    /* Workers block all signals: these belong to the program's own threads. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int failed = pthread_create(thread, &attributes, entry, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return !failed;
}

static inline int genie_cpus(void) {
#if defined(__linux__)
    cpu_set_t mine; /* with more CPUs than it holds the call fails, and all online CPUs count */
    if (sched_getaffinity(0, sizeof mine, &mine) == 0)
        return CPU_COUNT(&mine);
#endif
#if defined(_SC_NPROCESSORS_ONLN)
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int)online : 1;
#else
    return 1;
#endif
}

static inline int genie_mutex_create(genie_mutex *mutex) { return pthread_mutex_init(mutex, NULL) == 0; }
static inline int genie_condition_create(genie_condition *condition) { return pthread_cond_init(condition, NULL) == 0; }
static inline void genie_thread_join(genie_thread thread) { pthread_join(thread, NULL); }
static inline void genie_yield(void) { sched_yield(); }
static inline void genie_mutex_free(genie_mutex *mutex) { pthread_mutex_destroy(mutex); }
static inline void genie_condition_free(genie_condition *condition) { pthread_cond_destroy(condition); }
static inline void genie_lock(genie_mutex *mutex) { pthread_mutex_lock(mutex); }
static inline void genie_unlock(genie_mutex *mutex) { pthread_mutex_unlock(mutex); }
static inline void genie_wake_all(genie_condition *condition) { pthread_cond_broadcast(condition); }
static inline void genie_wait(genie_condition *condition, genie_mutex *mutex) { pthread_cond_wait(condition, mutex); }
#endif

#endif
