# Looks for CUDA unless CHORALE_CUDA=OFF or a sanitizer is on. Sets CHORALE_HAS_CUDA and enables the language; one line says what was
# found. Included by the top CMakeLists.txt, since a language belongs to the highest folder that links it.
set(CHORALE_HAS_CUDA OFF)
if(CHORALE_CUDA STREQUAL "OFF" OR CHORALE_SANITIZE)
  message(STATUS "CUDA is off: CPU workers only")
  return()
endif()
# Ends with an error where CUDA was asked for. A macro, so that the caller can return().
macro(cuda_is_unfit what_is_wrong what_is_needed)
  if(CHORALE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "CHORALE_CUDA=ON, but ${what_is_wrong}; ${what_is_needed}")
  endif()
  message(STATUS "${what_is_wrong}: CPU workers only")
endmacro()
find_program(NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATH_SUFFIXES bin PATHS /usr/local/cuda/bin)
if(NOT NVCC)
  cuda_is_unfit("CUDA was not found" "nvcc is looked for in PATH, CUDA_HOME and /usr/local/cuda/bin")
  return()
endif()
execute_process(COMMAND ${NVCC} --version OUTPUT_VARIABLE nvcc_says ERROR_QUIET)
string(REGEX MATCH "release ([0-9]+\\.[0-9]+)" nvcc_release "${nvcc_says}")
set(nvcc_release "${CMAKE_MATCH_1}")
if(nvcc_release VERSION_LESS 12.0)  # the first with C++20
  cuda_is_unfit("CUDA is too old (${NVCC} is release '${nvcc_release}')" "12.0 or newer is needed")
  return()
endif()
set(CMAKE_CUDA_COMPILER ${NVCC})
if(nvcc_release VERSION_LESS 12.8)
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90)
else()
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 100)  # the last with PTX, for what comes after
endif()
enable_language(CUDA)
set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)  # CMake 3.25 does not know CUDA 13's
find_package(CUDAToolkit REQUIRED)
# Keeps what ptxas says of each kernel beside its object, for tests/gpu/kernel_budget.
set(CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_SOURCE_DIR}/worker/kernels/cuda/keep_ptxas_report ${CCACHE})
set(CHORALE_HAS_CUDA ON)
message(STATUS "CUDA ${CMAKE_CUDA_COMPILER_VERSION}: GPU workers for ${CMAKE_CUDA_ARCHITECTURES}")
