# LORAX_PLUGIN_ABI: the hash of every header that addon and lorax_cuda.so must have in common. Only
# the sources that compare it are compiled with it: lorax_plugin_abi(source...).
file(GLOB abi_headers CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/native/backend/*.h)
list(APPEND abi_headers ${CMAKE_CURRENT_SOURCE_DIR}/native/cuda/cuda_backend.h
                        ${CMAKE_CURRENT_SOURCE_DIR}/native/cuda/plugin.h)
set(abi_text "")
foreach(header IN LISTS abi_headers)
  file(SHA256 ${header} header_hash)
  string(APPEND abi_text ${header_hash})
endforeach()
string(SHA256 LORAX_PLUGIN_ABI "${abi_text}")
string(SUBSTRING ${LORAX_PLUGIN_ABI} 0 16 LORAX_PLUGIN_ABI)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${abi_headers})

function(lorax_plugin_abi)
  set_property(SOURCE ${ARGN} APPEND PROPERTY COMPILE_DEFINITIONS
               "LORAX_PLUGIN_ABI=\"${LORAX_PLUGIN_ABI}\"")
endfunction()

# A plugin exports its entry alone: neither its libstdc++ nor its CUDA runtime may be mixed with
# those that other modules of the process bring along. The unwinder is the process's (libgcc_s, which
# Node has loaded): one of its own would hand its state to the other modules' handlers, which read it
# with tables of another copy, and abort.
function(lorax_plugin_options target)
  set_target_properties(${target} PROPERTIES PREFIX "" SUFFIX ".so")
  set(map ${CMAKE_CURRENT_SOURCE_DIR}/cmake/plugin.map)
  target_link_options(${target} PRIVATE -Wl,--version-script=${map})
  if(NOT LORAX_SANITIZE)  # whose run-time belongs to the executable
    target_link_options(${target} PRIVATE -static-libstdc++ -shared-libgcc -Wl,-z,defs)
  endif()
  set_property(TARGET ${target} APPEND PROPERTY LINK_DEPENDS ${map})
endfunction()
