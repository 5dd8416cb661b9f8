// The one file that compiles Asio and Beast; all others only see their declarations (BOOST_*_SEPARATE_COMPILATION in
// CMakeLists.txt).
#include <utility>

#include <boost/asio/impl/src.hpp>
#include <boost/beast/src.hpp>
