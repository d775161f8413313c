# Cross-compiles for 64-bit ARM Linux: cmake --toolchain cmake/aarch64-linux-gnu.cmake -S . -B build/aarch64
# -D GENIE_CLANG=ON takes clang, with the headers and libraries of the gcc named here.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES GENIE_CLANG)
if(GENIE_CLANG)
  set(CMAKE_C_COMPILER clang)
  set(CMAKE_C_COMPILER_TARGET aarch64-linux-gnu)
else()
  set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
endif()
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER) # Python runs during the build: take the building machine's
