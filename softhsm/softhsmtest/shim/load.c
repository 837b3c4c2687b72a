/* Finds the three files next to this module, and gives real.so an environment of its own. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shim.h"

struct control *control;
CK_FUNCTION_LIST_PTR real;

static char folder[4096];
static char *environment; /* NAME=value\0NAME=value\0\0 */

static bool complain(const char *what, const char *why)
{
	fprintf(stderr, "fault module in %s: %s: %s\n", folder, what, why);
	return false;
}

static int open_beside(const char *name, int flags, size_t *size)
{
	char path[sizeof folder + 32];
	struct stat info;
	snprintf(path, sizeof path, "%s/%s", folder, name);
	int fd = open(path, flags | O_CLOEXEC);
	if (fd >= 0 && fstat(fd, &info) == 0)
		*size = (size_t)info.st_size;
	return fd;
}

static bool map_control(void)
{
	size_t size = 0;
	int fd = open_beside("control", O_RDWR, &size);
	if (fd < 0 || size < sizeof *control)
		return complain("control", "is missing or too short");
	control = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (control == MAP_FAILED)
		return complain("control", "cannot be mapped");
	if (control->layout != LAYOUT || control->functions != FUNCTIONS)
		return complain("control", "has another layout");
	return true;
}

static bool read_environment(void)
{
	size_t size = 0;
	int fd = open_beside("env", O_RDONLY, &size);
	environment = calloc(1, size + 2);
	if (fd < 0 || environment == NULL || read(fd, environment, size) != (ssize_t)size)
		return complain("env", "cannot be read");
	close(fd);
	for (char *p = environment; *p != '\0'; p++)
		if (*p == '\n')
			*p = '\0';
	return true;
}

/* own_getenv is what real.so calls for getenv: its own variables first, then those of the process. */
static char *own_getenv(const char *name)
{
	size_t n = strlen(name);
	for (char *line = environment; *line != '\0'; line += strlen(line) + 1)
		if (strncmp(line, name, n) == 0 && line[n] == '=')
			return line + n + 1;
	return getenv(name);
}

static bool redirect(void **where)
{
	uintptr_t page = (uintptr_t)where & ~((uintptr_t)sysconf(_SC_PAGESIZE) - 1);
	/* The linker has made the page read-only after it had filled it in; it stays writable from here on. */
	if (mprotect((void *)page, (uintptr_t)(where + 1) - page, PROT_READ | PROT_WRITE) != 0)
		return false;
	*where = (void *)own_getenv;
	return true;
}

/*
 * own_environment lets the imported function getenv of a loaded library point to own_getenv. SOFTHSM2_CONF and
 * P11_KIT_SERVER_ADDRESS are one for the process; so each copy has its own, and setenv, which no other thread survives
 * that calls getenv at that moment, is not needed.
 */
static bool own_environment(void *library)
{
	struct link_map *map;
	if (dlinfo(library, RTLD_DI_LINKMAP, &map) != 0)
		return false;
	const char *strings = NULL;
	const ElfW(Sym) *symbols = NULL;
	const ElfW(Rela) *relocations = NULL;
	size_t size = 0;
	for (const ElfW(Dyn) *d = map->l_ld; d->d_tag != DT_NULL; d++) {
		if (d->d_tag == DT_STRTAB)
			strings = (const char *)d->d_un.d_ptr;
		else if (d->d_tag == DT_SYMTAB)
			symbols = (const ElfW(Sym) *)d->d_un.d_ptr;
		else if (d->d_tag == DT_JMPREL)
			relocations = (const ElfW(Rela) *)d->d_un.d_ptr;
		else if (d->d_tag == DT_PLTRELSZ)
			size = d->d_un.d_val;
		else if (d->d_tag == DT_PLTREL && d->d_un.d_val != DT_RELA)
			return false;
	}
	if (strings == NULL || symbols == NULL || relocations == NULL)
		return false;
	bool found = false;
	for (size_t i = 0; i < size / sizeof *relocations; i++) {
		const char *name = strings + symbols[ELF64_R_SYM(relocations[i].r_info)].st_name;
		if (strcmp(name, "getenv") == 0 || strcmp(name, "secure_getenv") == 0)
			found = redirect((void **)(map->l_addr + relocations[i].r_offset)) || found;
	}
	return found;
}

static bool load_real(void)
{
	char path[sizeof folder + 32];
	snprintf(path, sizeof path, "%s/real.so", folder);
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (library == NULL)
		return complain("real.so", dlerror());
	if (!own_environment(library))
		return complain("real.so", "imports no getenv that could be redirected");
	CK_C_GetFunctionList list = (CK_C_GetFunctionList)dlsym(library, "C_GetFunctionList");
	if (list == NULL || list(&real) != CKR_OK)
		return complain("real.so", "is not a PKCS#11 module");
	return true;
}

static bool loaded;

static void load(void)
{
	Dl_info self;
	if (dladdr(&functions, &self) == 0 || strlen(self.dli_fname) >= sizeof folder)
		return;
	strcpy(folder, self.dli_fname);
	char *slash = strrchr(folder, '/');
	if (slash == NULL)
		strcpy(folder, ".");
	else
		*slash = '\0';
	loaded = map_control() && read_environment() && load_real();
	if (loaded)
		functions.version = real->version;
}

__attribute__((visibility("default"))) CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR list)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, load);
	if (list == NULL_PTR)
		return CKR_ARGUMENTS_BAD;
	if (!loaded)
		return CKR_GENERAL_ERROR;
	*list = &functions;
	return CKR_OK;
}
