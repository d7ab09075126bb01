# lorax.node, the only target that includes napi.h. cmake-js passes CMAKE_JS_INC; without it
# (-DLORAX_BUILD_ADDON=ON) the headers are taken from node_modules.
file(GLOB_RECURSE addon_sources CONFIGURE_DEPENDS
     ${CMAKE_CURRENT_SOURCE_DIR}/native/binding/*.cc)
if(NOT addon_sources)
  message(FATAL_ERROR "native/binding holds no sources: there is no addon to build")
endif()

# lorax_node_package(variable expression): what Node prints for a header package's include dir.
function(lorax_node_package variable expression)
  execute_process(COMMAND node -p ${expression}
                  WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}
                  OUTPUT_VARIABLE out RESULT_VARIABLE status OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "node -p ${expression} failed: run npm ci first")
  endif()
  set(${variable} "${out}" PARENT_SCOPE)
endfunction()

set(napi_includes ${CMAKE_JS_INC})
if(NOT napi_includes)
  lorax_node_package(napi_includes "require('node-api-headers').include_dir")
endif()
lorax_node_package(addon_api_include "require('node-addon-api').include_dir")

lorax_plugin_abi(${CMAKE_CURRENT_SOURCE_DIR}/native/binding/backend_plugin.cc)
add_library(addon SHARED ${addon_sources} ${CMAKE_JS_SRC})
set_target_properties(addon PROPERTIES PREFIX "" OUTPUT_NAME lorax SUFFIX .node)
target_include_directories(addon SYSTEM PRIVATE ${napi_includes} ${addon_api_include})
target_compile_definitions(addon PRIVATE NAPI_VERSION=8 NAPI_CPP_EXCEPTIONS
                                         NODE_ADDON_API_DISABLE_DEPRECATED)
target_link_libraries(addon PRIVATE core backend_cpu ${CMAKE_JS_LIB} ${CMAKE_DL_LIBS})
if(APPLE)
  target_link_options(addon PRIVATE -undefined dynamic_lookup)
elseif(UNIX AND NOT LORAX_SANITIZE)
  # Users' machines have whatever libstdc++ they have; ours comes along. Not the unwinder: exceptions
  # of the CUDA plugin pass through, and all modules must share one.
  target_link_options(addon PRIVATE -static-libstdc++ -shared-libgcc)
endif()
