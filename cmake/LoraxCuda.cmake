# The CUDA backend, where nvcc is found. Targets: `backend_cuda` (lorax_cuda.so, opened at run time:
# nothing links it), with tests `lorax_cuda_tests`, with LORAX_BUILD_GPU_BENCH `lorax_gpu_bench` (one
# executable per file of bench/gpu, built only when asked for). The CUDA runtime is linked in; the
# driver and cuBLASLt are the machine's, looked up at run time. Everything builds without a GPU.
set(LORAX_CUDA AUTO CACHE STRING "Build the CUDA backend: AUTO (where nvcc is found), ON, OFF")
set_property(CACHE LORAX_CUDA PROPERTY STRINGS AUTO ON OFF)
# Releases: 80-real;86-real;89-real;90a-real;90-virtual (PTX for newer devices). 90a has what 90
# lacks: wgmma.
set(LORAX_CUDA_ARCHITECTURES 90a-real CACHE STRING "As CMake's CUDA_ARCHITECTURES")
option(LORAX_BUILD_GPU_BENCH "Build bench/gpu" OFF)

# Sets LORAX_CUDA_FOUND, and what is missing where it is not.
macro(lorax_find_cuda)
  set(LORAX_CUDA_FOUND FALSE)
  if(NOT CMAKE_SYSTEM_NAME STREQUAL "Linux")
    set(cuda_missing "it is for Linux only")
  elseif(LORAX_SANITIZE)
    set(cuda_missing "not with LORAX_SANITIZE")
  else()
    if(EXISTS "$ENV{CUDACXX}")
      set(LORAX_NVCC "$ENV{CUDACXX}" CACHE FILEPATH "" FORCE)
    endif()
    if(NOT EXISTS "${LORAX_NVCC}")
      unset(LORAX_NVCC CACHE)
    endif()
    find_program(LORAX_NVCC nvcc HINTS "$ENV{CUDA_HOME}/bin" "$ENV{CUDA_PATH}/bin"
                                 PATHS /usr/local/cuda/bin)
    if(NOT LORAX_NVCC)
      set(cuda_missing "no nvcc (CUDACXX, CUDA_HOME, PATH, /usr/local/cuda)")
    else()
      # A trial in a project of its own: an nvcc that does not work must not end an AUTO build.
      if(NOT EXISTS "${CMAKE_CUDA_COMPILER}")  # not found before, or gone since
        unset(CMAKE_CUDA_COMPILER CACHE)
        file(REMOVE ${CMAKE_PLATFORM_INFO_DIR}/CMakeCUDACompiler.cmake)
      endif()
      set(ENV{CUDACXX} ${LORAX_NVCC})
      include(CheckLanguage)
      check_language(CUDA)
      if(NOT CMAKE_CUDA_COMPILER)
        set(cuda_missing "${LORAX_NVCC} does not work (see CMakeFiles/CMakeError.log)")
      else()
        set(CMAKE_CUDA_ARCHITECTURES ${LORAX_CUDA_ARCHITECTURES})
        enable_language(CUDA)
        if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # which CMake 3.25 does not know of nvcc 12
          set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
        endif()
        find_package(CUDAToolkit)
        if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.3)
          set(cuda_missing "nvcc ${CMAKE_CUDA_COMPILER_VERSION} is too old, 12.3 is needed")
        elseif(NOT TARGET CUDA::cudart_static)
          set(cuda_missing "${LORAX_NVCC} has no cudart_static beside it")
        else()
          set(LORAX_CUDA_FOUND TRUE)
        endif()
      endif()
    endif()
  endif()
endmacro()

# Flags of a target with CUDA sources.
function(lorax_cuda_target target)
  set_target_properties(${target} PROPERTIES
                        CUDA_ARCHITECTURES "${LORAX_CUDA_ARCHITECTURES}"
                        CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON CUDA_EXTENSIONS OFF
                        CUDA_VISIBILITY_PRESET hidden
                        CUDA_RUNTIME_LIBRARY Static
                        LINKER_LANGUAGE CXX)
  target_compile_options(${target} PRIVATE
                         $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr>
                         $<$<AND:$<COMPILE_LANGUAGE:CUDA>,$<NOT:$<CONFIG:Release>>>:-lineinfo>)
endfunction()

if(LORAX_CUDA STREQUAL "OFF")
  set(cuda_missing "LORAX_CUDA is OFF")
  set(LORAX_CUDA_FOUND FALSE)
else()
  lorax_find_cuda()
endif()
if(NOT LORAX_CUDA_FOUND)
  if(LORAX_CUDA STREQUAL "ON")
    message(FATAL_ERROR "LORAX_CUDA is ON, but: ${cuda_missing}")
  endif()
  message(STATUS "CUDA backend: not built: ${cuda_missing}")
  return()
endif()
message(STATUS "CUDA backend: nvcc ${CMAKE_CUDA_COMPILER_VERSION}, ${LORAX_CUDA_ARCHITECTURES}")

# Everything but the plugin's entry, so that tests and benchmarks link it too.
file(GLOB_RECURSE cuda_sources CONFIGURE_DEPENDS
     ${CMAKE_CURRENT_SOURCE_DIR}/native/cuda/*.cc ${CMAKE_CURRENT_SOURCE_DIR}/native/cuda/*.cu)
set(plugin_source ${CMAKE_CURRENT_SOURCE_DIR}/native/cuda/plugin.cc)
list(REMOVE_ITEM cuda_sources ${plugin_source})
add_library(backend_cuda_static STATIC ${cuda_sources})
lorax_cuda_target(backend_cuda_static)
string(REPLACE ";" " " architectures_text "${LORAX_CUDA_ARCHITECTURES}")
set_property(SOURCE ${CMAKE_CURRENT_SOURCE_DIR}/native/cuda/probe.cu APPEND PROPERTY
             COMPILE_DEFINITIONS "LORAX_CUDA_ARCHITECTURES=\"${architectures_text}\"")
target_link_libraries(backend_cuda_static PUBLIC lorax_flags CUDA::cudart_static ${CMAKE_DL_LIBS})

lorax_plugin_abi(${plugin_source})
add_library(backend_cuda SHARED ${plugin_source})
lorax_cuda_target(backend_cuda)
lorax_plugin_options(backend_cuda)
set_target_properties(backend_cuda PROPERTIES OUTPUT_NAME lorax_cuda)
target_link_libraries(backend_cuda PRIVATE backend_cuda_static)

if(LORAX_BUILD_TESTS)
  file(GLOB_RECURSE cuda_test_sources CONFIGURE_DEPENDS
       ${CMAKE_CURRENT_SOURCE_DIR}/test/native/cuda/*.cc
       ${CMAKE_CURRENT_SOURCE_DIR}/test/native/cuda/*.cu
       ${CMAKE_CURRENT_SOURCE_DIR}/test/native/reference/*.cc)
  # The decoder's suites, with a list of backends of their own (test/native/cuda/backend_cases.cc).
  list(APPEND cuda_test_sources
       ${CMAKE_CURRENT_SOURCE_DIR}/test/native/model/decoder_test.cc
       ${CMAKE_CURRENT_SOURCE_DIR}/test/native/model/pooling_test.cc
       ${CMAKE_CURRENT_SOURCE_DIR}/test/native/model/step_timer_test.cc
       ${CMAKE_CURRENT_SOURCE_DIR}/test/native/model/step_runner.cc
       ${CMAKE_CURRENT_SOURCE_DIR}/test/native/model/tiny_model.cc
       ${CMAKE_CURRENT_SOURCE_DIR}/test/native/model/relative_error.cc)
  add_executable(lorax_cuda_tests ${cuda_test_sources})
  lorax_cuda_target(lorax_cuda_tests)
  target_link_libraries(lorax_cuda_tests PRIVATE backend_cuda_static backend_cpu core GTest::gtest)
  target_include_directories(lorax_cuda_tests PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/test/native)
  target_compile_definitions(lorax_cuda_tests PRIVATE
                             LORAX_SOURCE_DIR="${CMAKE_CURRENT_SOURCE_DIR}")
  # It goes to machines with a GPU, which may have an older libstdc++.
  target_link_options(lorax_cuda_tests PRIVATE -static-libstdc++ -static-libgcc)
endif()

if(LORAX_BUILD_GPU_BENCH)
  add_custom_target(lorax_gpu_bench)
  file(GLOB bench_common CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/bench/gpu/common/*.cc)
  add_library(gpu_bench_common STATIC EXCLUDE_FROM_ALL ${bench_common})
  target_include_directories(gpu_bench_common PUBLIC ${CMAKE_CURRENT_SOURCE_DIR}/bench/gpu)
  # The CPU's: to try them out where there is no GPU.
  target_link_libraries(gpu_bench_common PUBLIC backend_cuda_static backend_cpu core)
  file(GLOB bench_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/bench/gpu/*.cc
                                            ${CMAKE_CURRENT_SOURCE_DIR}/bench/gpu/*.cu)
  foreach(source IN LISTS bench_sources)
    get_filename_component(name ${source} NAME_WE)
    add_executable(${name} EXCLUDE_FROM_ALL ${source})
    lorax_cuda_target(${name})
    target_link_libraries(${name} PRIVATE gpu_bench_common)
    target_link_options(${name} PRIVATE -static-libstdc++ -static-libgcc)
    add_dependencies(lorax_gpu_bench ${name})
  endforeach()
  # The same as a library, for bench/gpu/trace.py.
  add_library(decode_trace SHARED EXCLUDE_FROM_ALL ${CMAKE_CURRENT_SOURCE_DIR}/bench/gpu/decode_bench.cc)
  lorax_cuda_target(decode_trace)
  target_link_libraries(decode_trace PRIVATE gpu_bench_common)
  target_link_options(decode_trace PRIVATE -static-libstdc++ -static-libgcc)
endif()
