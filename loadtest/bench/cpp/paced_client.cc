// Sends prepared ModelInferRequests when they are due, whether or not earlier ones were answered; in C++, so that as
// little as possible of a machine that client and server share goes to the client.
//
// paced_client TARGET PLAN SAMPLES IN_FLIGHT SECONDS
// PLAN is int64 values and bytes: the number of bodies and of requests, each body's size, the bodies one after the
// other, each request's due time in nanoseconds from the start, and each request's body. Prints "ready" once it is
// connected, reads the start in nanoseconds of the monotonic clock from standard input, and ends when all is answered.
// With IN_FLIGHT above 0 the due times are ignored: so many callers send again when they are answered, for SECONDS.
// SAMPLES gets four int64 a request: due, sent, done (of the monotonic clock) and gRPC's status.

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <sys/resource.h>
#include <time.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr int64_t kNsPerS = 1000000000;
constexpr int kConnections = 2;
constexpr int kConnectS = 30;
const char kMethod[] = "/inference.GRPCInferenceService/ModelInfer";

int64_t NowNs() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * kNsPerS + time.tv_nsec;
}

void SleepUntil(int64_t at_ns) {
  const timespec at = {at_ns / kNsPerS, at_ns % kNsPerS};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr) != 0) {
  }
}

double CpuSeconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

struct Plan {
  std::vector<grpc::ByteBuffer> bodies;
  std::vector<int64_t> due_ns;
  std::vector<int64_t> body;
};

struct Sample {
  int64_t due_ns, sent_ns, done_ns, status;
};

std::vector<int64_t> ReadValues(std::ifstream& file, int64_t count) {
  std::vector<int64_t> values(count);
  file.read(reinterpret_cast<char*>(values.data()), count * sizeof(int64_t));
  return values;
}

Plan ReadPlan(const char* path) {
  std::ifstream file(path, std::ios::binary);
  const auto counts = ReadValues(file, 2);
  Plan plan;
  for (const auto size : ReadValues(file, counts[0])) {
    std::string bytes(size, '\0');
    file.read(bytes.data(), size);
    const grpc::Slice slice(bytes);
    plan.bodies.emplace_back(&slice, 1);
  }
  plan.due_ns = ReadValues(file, counts[1]);
  plan.body = ReadValues(file, counts[1]);
  if (!file) {
    std::fprintf(stderr, "%s: not a plan\n", path);
    std::exit(2);
  }
  return plan;
}

struct Call {
  grpc::ClientContext context;
  grpc::ByteBuffer answer;
  grpc::Status status;
  std::unique_ptr<grpc::ClientAsyncResponseReader<grpc::ByteBuffer>> reader;
  Sample sample;
};

class Client {
 public:
  explicit Client(const char* target) {
    for (int i = 0; i < kConnections; ++i) {
      grpc::ChannelArguments arguments;
      arguments.SetInt("erg.connection", i);  // Channels with equal arguments share a connection.
      arguments.SetMaxReceiveMessageSize(-1);
      arguments.SetMaxSendMessageSize(-1);
      auto channel = grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
      if (!channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(kConnectS))) {
        std::fprintf(stderr, "%s: no connection\n", target);
        std::exit(2);
      }
      stubs_.push_back(std::make_unique<grpc::GenericStub>(channel));
    }
  }

  // Called by one thread at a time.
  void Send(const grpc::ByteBuffer& body, int64_t due_ns) {
    auto* call = new Call;
    auto& stub = *stubs_[turn_++ % stubs_.size()];
    call->sample.due_ns = due_ns;
    call->sample.sent_ns = NowNs();
    call->reader = stub.PrepareUnaryCall(&call->context, kMethod, body, &queue_);
    call->reader->StartCall();
    call->reader->Finish(&call->answer, &call->status, call);
  }

  // The next call that ended.
  std::unique_ptr<Call> Next() {
    void* tag;
    bool ok;
    if (!queue_.Next(&tag, &ok)) return nullptr;
    std::unique_ptr<Call> call(static_cast<Call*>(tag));
    call->sample.done_ns = NowNs();
    call->sample.status = call->status.error_code();
    return call;
  }

 private:
  std::vector<std::unique_ptr<grpc::GenericStub>> stubs_;
  grpc::CompletionQueue queue_;
  size_t turn_ = 0;
};

void RunOpen(Client& client, const Plan& plan, int64_t start_ns, std::vector<Sample>& samples) {
  // A thread of its own sends: the completion queue's time-outs are of whole milliseconds.
  std::thread sender([&] {
    for (size_t i = 0; i < plan.due_ns.size(); ++i) {
      SleepUntil(start_ns + plan.due_ns[i]);
      client.Send(plan.bodies[plan.body[i]], start_ns + plan.due_ns[i]);
    }
  });
  while (samples.size() < plan.due_ns.size()) samples.push_back(client.Next()->sample);
  sender.join();
}

void RunClosed(Client& client, const Plan& plan, int64_t start_ns, int in_flight, int64_t end_ns,
               std::vector<Sample>& samples) {
  SleepUntil(start_ns);
  size_t sent = 0;
  for (; sent < size_t(in_flight); ++sent) client.Send(plan.bodies[sent % plan.bodies.size()], NowNs());
  for (size_t done = 0; done < sent; ++done) {
    samples.push_back(client.Next()->sample);
    const auto now_ns = NowNs();
    if (now_ns < end_ns) client.Send(plan.bodies[sent++ % plan.bodies.size()], now_ns);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fprintf(stderr, "usage: paced_client TARGET PLAN SAMPLES IN_FLIGHT SECONDS\n");
    return 2;
  }
  const auto plan = ReadPlan(argv[2]);
  const int in_flight = std::atoi(argv[4]);
  const auto duration_ns = int64_t(std::atof(argv[5]) * kNsPerS);
  Client client(argv[1]);
  std::printf("ready\n");
  std::fflush(stdout);
  long long start_ns;
  if (std::scanf("%lld", &start_ns) != 1) return 2;
  std::vector<Sample> samples;
  samples.reserve(plan.due_ns.size());
  const double before_s = CpuSeconds();
  if (in_flight > 0) {
    RunClosed(client, plan, start_ns, in_flight, start_ns + duration_ns, samples);
  } else {
    RunOpen(client, plan, start_ns, samples);
  }
  std::printf("%.6f\n", CpuSeconds() - before_s);
  std::ofstream out(argv[3], std::ios::binary);
  out.write(reinterpret_cast<const char*>(samples.data()), samples.size() * sizeof(Sample));
  return out.flush() ? 0 : 1;
}
