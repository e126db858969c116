// What C++ gRPC costs: ModelInfer answered by its own input, by gRPC's callback interface on its default threads.
//
// identity_server [ANSWER_BYTES]
// Prints the port it listens on. With ANSWER_BYTES, answers are cut to that size.

#include <grpcpp/grpcpp.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "erg_server/pb/inference.grpc.pb.h"

namespace {

void Answer(const inference::ModelInferRequest& request, size_t answer_bytes, inference::ModelInferResponse* response) {
  response->set_model_name(request.model_name());
  response->set_model_version("1");
  response->set_id(request.id());
  for (int i = 0; i < request.inputs_size(); ++i) {
    auto* output = response->add_outputs();
    output->set_name("y");
    output->set_datatype(request.inputs(i).datatype());
    *output->mutable_shape() = request.inputs(i).shape();
    const auto& raw = request.raw_input_contents(i);
    response->add_raw_output_contents(answer_bytes && raw.size() > answer_bytes ? raw.substr(0, answer_bytes) : raw);
  }
}

class Stream : public grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse> {
 public:
  explicit Stream(size_t answer_bytes) : answer_bytes_(answer_bytes) { StartRead(&request_); }
  void OnReadDone(bool ok) override {
    if (!ok) {
      Finish(grpc::Status::OK);
      return;
    }
    response_.Clear();
    Answer(request_, answer_bytes_, response_.mutable_infer_response());
    StartWrite(&response_);
  }
  void OnWriteDone(bool) override { StartRead(&request_); }
  void OnDone() override { delete this; }

 private:
  size_t answer_bytes_;
  inference::ModelInferRequest request_;
  inference::ModelStreamInferResponse response_;
};

class Identity : public inference::GRPCInferenceService::CallbackService {
 public:
  explicit Identity(size_t answer_bytes) : answer_bytes_(answer_bytes) {}
  grpc::ServerUnaryReactor* ModelInfer(grpc::CallbackServerContext* context, const inference::ModelInferRequest* request,
                                       inference::ModelInferResponse* response) override {
    Answer(*request, answer_bytes_, response);
    auto* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
  grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>* ModelStreamInfer(
      grpc::CallbackServerContext*) override {
    return new Stream(answer_bytes_);
  }

 private:
  size_t answer_bytes_;
};

}  // namespace

int main(int argc, char** argv) {
  Identity service(argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 0);
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.SetMaxReceiveMessageSize(-1);
  builder.RegisterService(&service);
  auto server = builder.BuildAndStart();
  std::printf("%d\n", port);
  std::fflush(stdout);
  server->Wait();
}
