# What the launcher has taken in from the C library and the compiler, told in the wheel (PEP 770).
execute_process(
  COMMAND ${CMAKE_C_COMPILER} -E -dM -include features.h -x c /dev/null
  OUTPUT_VARIABLE macros
  COMMAND_ERROR_IS_FATAL ANY)
if(macros MATCHES "__GLIBC__ ([0-9]+)" AND macros MATCHES "__GLIBC_MINOR__ ([0-9]+)")
  string(REGEX REPLACE ".*__GLIBC__ ([0-9]+).*" "\\1" major "${macros}")
  string(REGEX REPLACE ".*__GLIBC_MINOR__ ([0-9]+).*" "\\1" minor "${macros}")
  set(LIBC_NAME glibc)
  set(LIBC_LICENSE LGPL-2.1-or-later)
  set(LIBC_VERSION "${major}.${minor}")
else()
  # musl does not tell its version (https://wiki.musl-libc.org/faq).
  set(LIBC_NAME musl)
  set(LIBC_LICENSE MIT)
  set(LIBC_VERSION unknown)
endif()
configure_file(release/wheel-sbom.json.in cni-py.cdx.json @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/cni-py.cdx.json DESTINATION ${SKBUILD_METADATA_DIR}/sboms)
