# Looks for CUDA unless CHORALE_CUDA=OFF or a sanitizer is on. Sets CHORALE_HAS_CUDA and enables the language; one line says what was
# found. Included by the top CMakeLists.txt, since a language belongs to the highest folder that links it.
set(CHORALE_HAS_CUDA OFF)
if(CHORALE_CUDA STREQUAL "OFF" OR CHORALE_SANITIZE)
  message(STATUS "CUDA is off: CPU workers only")
  return()
endif()
find_program(NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATH_SUFFIXES bin PATHS /usr/local/cuda/bin)
if(NOT NVCC)
  if(CHORALE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "CHORALE_CUDA=ON, but there is no nvcc in PATH, CUDA_HOME or /usr/local/cuda/bin")
  endif()
  message(STATUS "CUDA was not found: CPU workers only")
  return()
endif()
set(CMAKE_CUDA_COMPILER ${NVCC})
set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 100)  # the last with PTX, for what comes after
enable_language(CUDA)
set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)  # CMake 3.25 does not know CUDA 13's
find_package(CUDAToolkit REQUIRED)
# Keeps what ptxas says of each kernel beside its object, for tests/lint/kernel_budget.
set(CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_SOURCE_DIR}/worker/kernels/cuda/keep_ptxas_report ${CCACHE})
set(CHORALE_HAS_CUDA ON)
message(STATUS "CUDA ${CMAKE_CUDA_COMPILER_VERSION}: GPU workers for ${CMAKE_CUDA_ARCHITECTURES}")
