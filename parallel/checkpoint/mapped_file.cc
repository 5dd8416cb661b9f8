#include "parallel/checkpoint/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "comm/base/error.h"

namespace chorale::parallel {

MappedFile MappedFile::open(const std::filesystem::path& path) {
  // O_NONBLOCK: opening a FIFO must not wait for its writer.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    const ErrorCode code = errno == ENOENT || errno == ENOTDIR ? ErrorCode::kNotFound : ErrorCode::kSystem;
    fail(code, "cannot open {}: {}", path.string(), std::strerror(errno));
  }
  MappedFile file(path, fd);
  struct stat info {};
  if (fstat(fd, &info) != 0) fail(ErrorCode::kSystem, "cannot stat {}: {}", path.string(), std::strerror(errno));
  if (S_ISDIR(info.st_mode)) fail(ErrorCode::kCorrupt, "{} is a directory, expected a file", path.string());
  if (!S_ISREG(info.st_mode)) fail(ErrorCode::kCorrupt, "{} is not a regular file", path.string());
  if (info.st_size == 0) fail(ErrorCode::kCorrupt, "{} is empty; copy or download it again", path.string());
  const auto size = static_cast<size_t>(info.st_size);
  void* data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (data == MAP_FAILED)
    fail(ErrorCode::kSystem, "cannot map {} ({} bytes): {}", path.string(), size, std::strerror(errno));
  file.data_ = data;
  file.size_ = size;
  return file;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      fd_(std::exchange(other.fd_, -1)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  if (this != &other) {
    close();
    path_ = std::move(other.path_);
    fd_ = std::exchange(other.fd_, -1);
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
  }
  return *this;
}

MappedFile::~MappedFile() { close(); }

void MappedFile::close() noexcept {
  if (data_ != nullptr) munmap(std::exchange(data_, nullptr), size_);
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

void MappedFile::check_not_truncated() const {
  struct stat info {};
  if (fstat(fd_, &info) != 0) fail(ErrorCode::kSystem, "cannot stat {}: {}", path_.string(), std::strerror(errno));
  if (static_cast<uint64_t>(info.st_size) < size_)
    fail(ErrorCode::kCorrupt,
         "{} was truncated while in use: it had {} bytes, now {}; do not overwrite a served checkpoint", path_.string(),
         size_, static_cast<uint64_t>(info.st_size));
}

}  // namespace chorale::parallel
