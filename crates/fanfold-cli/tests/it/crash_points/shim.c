/* Records every system call by which a process changes one folder, in one order. seccomp traps the
 * calls of all code in the process, and the handler makes them itself, one at a time.
 *
 * FANFOLD_SHIM_FOLDER  the folder, absolute
 * FANFOLD_SHIM_RECORD  a file to which each call is appended when it is done: see `record.rs`
 * FANFOLD_SHIM_AT      the number of a call, counted from 1, that is not made
 * FANFOLD_SHIM_DO      the error with which that call fails; without it, the process is killed
 *
 * For Linux on x86-64, preloaded. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

#define PATH_BYTES 4096
#define ACK_BYTES 4096

/* The only place whose system calls are not trapped. */
long made(long nr, long a, long b, long c, long d, long e, long f);
extern char made_here[];
__asm__(".text\n.globl made\nmade:\n mov %rdi,%rax\n mov %rsi,%rdi\n mov %rdx,%rsi\n mov %rcx,%rdx\n"
        " mov %r8,%r10\n mov %r9,%r8\n mov 8(%rsp),%r9\n syscall\n.globl made_here\nmade_here:\n ret\n");

static const int TRAPPED[] = {
    SYS_open, SYS_openat, SYS_openat2, SYS_creat, SYS_write, SYS_pwrite64, SYS_writev, SYS_pwritev,
    SYS_pwritev2, SYS_sendto, SYS_fsync, SYS_fdatasync, SYS_rename, SYS_renameat, SYS_renameat2, SYS_unlink,
    SYS_unlinkat, SYS_rmdir, SYS_mkdir, SYS_mkdirat, SYS_ftruncate, SYS_truncate, SYS_fallocate,
    SYS_link, SYS_linkat, SYS_symlink, SYS_symlinkat, SYS_copy_file_range, SYS_sendfile, SYS_splice,
};

static char folder[PATH_BYTES];
static size_t folder_bytes;
static int record = -1;
static long at, instead;
static long calls;
static volatile int busy;

/* The record of a call. A path, and another path or data, follow it. */
struct call {
    uint64_t nr, ino, at, flags, one_bytes, two_bytes;
};

static int is_within(const char *path) {
    return strncmp(path, folder, folder_bytes) == 0
        && (path[folder_bytes] == '/' || path[folder_bytes] == 0 || path[folder_bytes] == ' ');
}

static long path_of_fd(int fd, char *path) {
    char link[32] = "/proc/self/fd/", digits[12];
    size_t n = 0, end = strlen(link);
    if (fd < 0) return -1;
    do digits[n++] = '0' + fd % 10; while (fd /= 10);
    while (n) link[end++] = digits[--n];
    link[end] = 0;
    long bytes = made(SYS_readlink, (long)link, (long)path, PATH_BYTES - 1, 0, 0, 0);
    path[bytes > 0 ? bytes : 0] = 0;
    return bytes;
}

static void path_of(int at_fd, const char *name, char *path) {
    path[0] = 0;
    if (name[0] != '/') {
        if (at_fd == AT_FDCWD) made(SYS_getcwd, (long)path, PATH_BYTES, 0, 0, 0, 0);
        else path_of_fd(at_fd, path);
        strncat(path, "/", PATH_BYTES - 1 - strlen(path));
    }
    strncat(path, name, PATH_BYTES - 1 - strlen(path));
}

static uint64_t ino_of(int fd) {
    struct stat found;
    return made(SYS_fstat, fd, (long)&found, 0, 0, 0, 0) == 0 ? found.st_ino : 0;
}

static void note(struct call *call, const char *one, const void *two) {
    if (record < 0) return;
    struct iovec parts[] = {{call, sizeof *call}, {(void *)one, call->one_bytes}, {(void *)two, call->two_bytes}};
    made(SYS_writev, record, (long)parts, 3, 0, 0, 0);
}

/* Records the first bytes of an answer over a socket: enough to see a receipt. */
static void note_answer(long nr, long b, long c) {
    char text[ACK_BYTES];
    size_t bytes = 0;
    struct iovec one = {(void *)b, c}, *parts = nr == SYS_writev ? (void *)b : &one;
    long count = nr == SYS_writev ? c : 1;
    for (long i = 0; i < count; i++) {
        size_t more = parts[i].iov_len < ACK_BYTES - bytes ? parts[i].iov_len : ACK_BYTES - bytes;
        memcpy(text + bytes, parts[i].iov_base, more);
        bytes += more;
    }
    if (bytes < 5 || memcmp(text, "HTTP/", 5)) return;
    struct call call = {SYS_sendto, 0, 0, 0, 0, bytes};
    while (__atomic_exchange_n(&busy, 1, __ATOMIC_ACQUIRE)) made(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
    note(&call, 0, text);
    __atomic_store_n(&busy, 0, __ATOMIC_RELEASE);
}

static long handle(long nr, long a, long b, long c, long d, long e, long f) {
    char one[PATH_BYTES] = "", two[PATH_BYTES] = "";
    int has_fd = 0, flags = 0;
    switch (nr) {
    case SYS_open: path_of(AT_FDCWD, (char *)a, one); flags = b; break;
    case SYS_creat: path_of(AT_FDCWD, (char *)a, one); flags = O_CREAT | O_TRUNC; break;
    case SYS_openat: path_of(a, (char *)b, one); flags = c; break;
    case SYS_openat2: return -ENOSYS;
    case SYS_rename: path_of(AT_FDCWD, (char *)a, one); path_of(AT_FDCWD, (char *)b, two); break;
    case SYS_renameat: case SYS_renameat2: path_of(a, (char *)b, one); path_of(c, (char *)d, two); break;
    case SYS_unlink: case SYS_rmdir: case SYS_mkdir: case SYS_truncate: path_of(AT_FDCWD, (char *)a, one); break;
    case SYS_unlinkat: case SYS_mkdirat: path_of(a, (char *)b, one); flags = nr == SYS_unlinkat ? c : 0; break;
    case SYS_link: case SYS_symlink: path_of(AT_FDCWD, (char *)b, one); break;
    case SYS_linkat: path_of(c, (char *)d, one); break;
    case SYS_symlinkat: path_of(b, (char *)c, one); break;
    /* Callers of these fall back to `read` and `write`. */
    case SYS_copy_file_range: return -ENOSYS;
    case SYS_sendfile: case SYS_splice: return -EINVAL;
    default: has_fd = 1; path_of_fd(a, one);
    }
    int opens = nr == SYS_open || nr == SYS_openat || nr == SYS_creat;
    if (!is_within(one) && !is_within(two)) {
        if (record >= 0 && (nr == SYS_write || nr == SYS_writev || nr == SYS_sendto)) note_answer(nr, b, c);
        return made(nr, a, b, c, d, e, f);
    }
    if (opens && !(flags & (O_CREAT | O_TRUNC))) return made(nr, a, b, c, d, e, f);

    while (__atomic_exchange_n(&busy, 1, __ATOMIC_ACQUIRE)) made(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
    long result;
    if (++calls == at) {
        if (!instead) made(SYS_kill, made(SYS_getpid, 0, 0, 0, 0, 0, 0), SIGKILL, 0, 0, 0, 0);
        result = -instead;
    } else {
        result = made(nr, a, b, c, d, e, f);
    }
    struct call call = {nr, has_fd ? ino_of(a) : 0, 0, flags, strlen(one), strlen(two)};
    const void *more = two;
    if (result < 0) {
        /* A failed call has changed nothing, but it counts. */
        call.nr = -1;
        call.two_bytes = 0;
    } else if (opens) {
        call.ino = ino_of(result);
    } else if (nr == SYS_write || nr == SYS_pwrite64) {
        call.at = nr == SYS_pwrite64 ? d : made(SYS_lseek, a, 0, SEEK_CUR, 0, 0, 0) - result;
        call.two_bytes = result;
        more = (void *)b;
        call.nr = SYS_write;
    } else if (nr == SYS_ftruncate) {
        call.at = b;
    }
    note(&call, one, more);
    __atomic_store_n(&busy, 0, __ATOMIC_RELEASE);
    return result;
}

static void trapped(int signal, siginfo_t *info, void *context) {
    greg_t *reg = ((ucontext_t *)context)->uc_mcontext.gregs;
    int before = errno;
    reg[REG_RAX] = handle(info->si_syscall, reg[REG_RDI], reg[REG_RSI], reg[REG_RDX], reg[REG_R10], reg[REG_R8],
                          reg[REG_R9]);
    errno = before;
    (void)signal;
}

__attribute__((constructor)) static void begin(void) {
    const char *of = getenv("FANFOLD_SHIM_FOLDER"), *to = getenv("FANFOLD_SHIM_RECORD");
    const char *when = getenv("FANFOLD_SHIM_AT"), *what = getenv("FANFOLD_SHIM_DO");
    if (!of) return;
    strncpy(folder, of, PATH_BYTES - 1);
    folder_bytes = strlen(folder);
    if (when) at = atol(when);
    if (what) instead = atol(what);
    if (to) record = open(to, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);

    struct sigaction action = {0};
    action.sa_sigaction = trapped;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    if (sigaction(SIGSYS, &action, 0)) _exit(97);
    uint64_t here = (uint64_t)made_here;
    enum { N = sizeof TRAPPED / sizeof *TRAPPED };
    struct sock_filter filter[N + 8];
    size_t n = 0;
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < N; i++)
        filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, TRAPPED[i], N - i, 0);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    size_t ip = offsetof(struct seccomp_data, instruction_pointer);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ip);
    filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)here, 0, 2);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ip + 4);
    filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(here >> 32), 1, 0);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {n, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) _exit(98);
}
