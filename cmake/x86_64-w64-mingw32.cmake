# Cross-compiles for 64-bit Windows: cmake --toolchain cmake/x86_64-w64-mingw32.cmake -S . -B build/windows
set(CMAKE_SYSTEM_NAME Windows)
set(CMAKE_SYSTEM_PROCESSOR AMD64)
set(CMAKE_C_COMPILER x86_64-w64-mingw32-gcc)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER) # Python runs during the build: take the building machine's
