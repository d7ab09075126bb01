# Instruction-set flags by file name: *_avx2.cc, *_avx512.cc and *_amx.cc of the CPU backend, on
# x86-64 and only as far as the compiler knows them; LORAX_HAVE_AVX2/AVX512/AMX say which exist.
# Elsewhere these files are left out of the build. Every other file runs on any x86-64.
include(CheckCXXCompilerFlag)

set(LORAX_AVX2_FLAGS -mavx2 -mfma -mf16c)
# Exactly what has_avx512() and has_amx() of native/cpu/isa.cc ask the processor for.
set(LORAX_AVX512_FLAGS ${LORAX_AVX2_FLAGS} -mavx512f -mavx512bw -mavx512vl -mavx512dq)
set(LORAX_AMX_FLAGS ${LORAX_AVX512_FLAGS} -mavx512bf16 -mamx-tile -mamx-bf16)

function(lorax_isa_flags target)
  set(is_x86 FALSE)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$" AND NOT MSVC)
    set(is_x86 TRUE)
  endif()
  get_target_property(type ${target} TYPE)
  foreach(isa AVX2 AVX512 AMX)
    set(available FALSE)
    if(is_x86)
      list(JOIN LORAX_${isa}_FLAGS " " flags)
      check_cxx_compiler_flag("${flags}" LORAX_COMPILER_HAS_${isa})
      set(available ${LORAX_COMPILER_HAS_${isa}})
    endif()
    string(TOLOWER ${isa} suffix)
    set(files ${ARGN})
    list(FILTER files INCLUDE REGEX "_${suffix}\\.cc$")
    if(available)
      if(files)
        # A later flag of the same kind wins, so contraction here is only what intrinsics say.
        set_source_files_properties(${files} PROPERTIES COMPILE_OPTIONS "${LORAX_${isa}_FLAGS}")
      endif()
      if(NOT type STREQUAL "INTERFACE_LIBRARY")
        target_compile_definitions(${target} PUBLIC LORAX_HAVE_${isa}=1)
      endif()
    elseif(files)
      set_source_files_properties(${files} PROPERTIES HEADER_FILE_ONLY TRUE)
    endif()
  endforeach()
endfunction()
