# Makes ROS 2 from PyPI wheels usable for building interfaces. Only for that case:
# cmake -DCMAKE_PROJECT_INCLUDE=<this file>, which CMake then reads after project().

# The generators register themselves when they are found. Finding them here, first, allows those
# for C++ to be struck out again: Python needs only the C ones, and the build takes half the time.
find_package(rosidl_default_generators REQUIRED)
foreach(step rosidl_generate_idl_interfaces rosidl_generate_interfaces)
  list(FILTER AMENT_EXTENSIONS_${step} EXCLUDE REGEX "^[a-z_]*_cpp:")
endforeach()

# The wheels' targets name include folders of the machine that built the wheels, which CMake
# refuses when it generates. So, when everything has been found, keep those that exist here.
function(drop_missing_include_folders)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(folders ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(NOT folders)
      continue()
    endif()
    set(kept "")
    foreach(folder IN LISTS folders)
      if(folder MATCHES "[$]<" OR IS_DIRECTORY "${folder}")
        list(APPEND kept "${folder}")
      endif()
    endforeach()
    set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${kept}")
  endforeach()
endfunction()
cmake_language(DEFER CALL drop_missing_include_folders)
