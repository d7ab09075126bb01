// Allocation through the runtime; the arena through the driver's virtual memory calls, which are
// looked up at run time so that nothing links libcuda.
#include "cuda/device_memory.h"

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <string>

#include "cuda/check.h"

namespace lorax::cuda {
namespace {

[[noreturn]] void exhausted(int64_t bytes, const char* what) {
  size_t free = 0;
  size_t total = 0;
  cudaMemGetInfo(&free, &total);
  throw Error(
      "POOL_EXHAUSTED",
      std::string(what) + " needs " + std::to_string(bytes) + " bytes of device memory, " +
          std::to_string(free) + " of " + std::to_string(total) +
          " are free: give the engine a smaller model or fewer batch tokens, or stop what "
          "else uses the device",
      {{"neededBytes", static_cast<double>(bytes)}, {"availableBytes", static_cast<double>(free)}});
}

template <typename Function>
Function driver(const char* name) {
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  LORAX_CUDA(cudaGetDriverEntryPointByVersion(name, &entry, 12000, cudaEnableDefault, &found));
  if (found != cudaDriverEntryPointSuccess) {
    throw Error("DEVICE_UNAVAILABLE",
                std::string("the NVIDIA driver has no ") + name + "; update it to 525 or newer");
  }
  return reinterpret_cast<Function>(entry);
}

struct Driver {
  decltype(&cuMemAddressReserve) reserve =
      driver<decltype(&cuMemAddressReserve)>("cuMemAddressReserve");
  decltype(&cuMemAddressFree) free_address =
      driver<decltype(&cuMemAddressFree)>("cuMemAddressFree");
  decltype(&cuMemCreate) create = driver<decltype(&cuMemCreate)>("cuMemCreate");
  decltype(&cuMemRelease) release = driver<decltype(&cuMemRelease)>("cuMemRelease");
  decltype(&cuMemMap) map = driver<decltype(&cuMemMap)>("cuMemMap");
  decltype(&cuMemUnmap) unmap = driver<decltype(&cuMemUnmap)>("cuMemUnmap");
  decltype(&cuMemSetAccess) set_access = driver<decltype(&cuMemSetAccess)>("cuMemSetAccess");
  decltype(&cuMemGetAllocationGranularity) granularity =
      driver<decltype(&cuMemGetAllocationGranularity)>("cuMemGetAllocationGranularity");
};

const Driver& driver_api() {
  static const Driver api;
  return api;
}

void check_driver(CUresult status, const char* call) {
  if (status != CUDA_SUCCESS) {
    throw Error("ENGINE_LOST",
                std::string(call) + " failed with CUDA driver error " + std::to_string(status),
                {{"call", std::string(call)}});
  }
}

CUmemAllocationProp properties(int device) {
  CUmemAllocationProp out = {};
  out.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  out.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  out.location.id = device;
  return out;
}

}  // namespace

void* DeviceMemory::take(int64_t bytes, const char* what) {
  void* data = nullptr;
  const cudaError_t status = cudaMalloc(&data, static_cast<size_t>(bytes));
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    exhausted(bytes, what);
  }
  check(status, "cudaMalloc");
  return data;
}

void DeviceMemory::give_back(void* data) { cudaFree(data); }

void* PinnedMemory::take(int64_t bytes, const char* what) {
  void* data = nullptr;
  const cudaError_t status = cudaHostAlloc(&data, static_cast<size_t>(bytes), cudaHostAllocMapped);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw Error("POOL_EXHAUSTED",
                std::string(what) + " needs " + std::to_string(bytes) +
                    " bytes of pinned host memory, which the system does not give",
                {{"neededBytes", static_cast<double>(bytes)}});
  }
  check(status, "cudaHostAlloc");
  return data;
}

void PinnedMemory::give_back(void* data) { cudaFreeHost(data); }

PageArena::PageArena(int device) : device_(device) {
  const CUmemAllocationProp prop = properties(device);
  size_t granularity = 0;
  check_driver(driver_api().granularity(&granularity, &prop, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED),
               "cuMemGetAllocationGranularity");
  granularity_ = static_cast<int64_t>(granularity);
  size_t free = 0;
  size_t total = 0;
  LORAX_CUDA(cudaMemGetInfo(&free, &total));
  reserved_bytes_ = (static_cast<int64_t>(total) + granularity_ - 1) / granularity_ * granularity_;
  check_driver(
      driver_api().reserve(&base_, static_cast<size_t>(reserved_bytes_), granularity, 0, 0),
      "cuMemAddressReserve");
}

PageArena::~PageArena() {
  if (base_ == 0) return;
  unmap();
  driver_api().free_address(base_, static_cast<size_t>(reserved_bytes_));
}

int64_t PageArena::available_bytes() const {
  size_t free = 0;
  size_t total = 0;
  LORAX_CUDA(cudaMemGetInfo(&free, &total));
  return static_cast<int64_t>(free) / granularity_ * granularity_;
}

void PageArena::map(int64_t bytes) {
  unmap();
  const int64_t rounded = (bytes + granularity_ - 1) / granularity_ * granularity_;
  const CUmemAllocationProp prop = properties(device_);
  if (rounded > reserved_bytes_ ||
      driver_api().create(&handle_, static_cast<size_t>(rounded), &prop, 0) != CUDA_SUCCESS) {
    handle_ = 0;
    exhausted(rounded, "the page pool");
  }
  const CUresult mapped = driver_api().map(base_, static_cast<size_t>(rounded), 0, handle_, 0);
  if (mapped != CUDA_SUCCESS) {
    driver_api().release(handle_);
    handle_ = 0;
    check_driver(mapped, "cuMemMap");
  }
  mapped_bytes_ = rounded;
  CUmemAccessDesc access = {};
  access.location = prop.location;
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  check_driver(driver_api().set_access(base_, static_cast<size_t>(rounded), &access, 1),
               "cuMemSetAccess");
}

void PageArena::unmap() {
  if (mapped_bytes_ == 0) return;
  driver_api().unmap(base_, static_cast<size_t>(mapped_bytes_));
  driver_api().release(handle_);
  mapped_bytes_ = 0;
  handle_ = 0;
}

}  // namespace lorax::cuda
