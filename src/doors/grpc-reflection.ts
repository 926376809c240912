import { type DescFile, type DescService, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import type { Server } from "@grpc/grpc-js";
import { ReflectionService } from "@grpc/reflection";
import { file_google_rpc_error_details } from "../gen/google/rpc/error_details_pb.js";
import { file_grpc_health_v1_health } from "../gen/grpc/health/v1/health_pb.js";

/** Lets clients without our protos (grpcurl, say) ask for them: server reflection, v1 and v1alpha, for these services and health. */
export function addReflection(server: Pick<Server, "addService">, services: readonly DescService[]): void {
  // Clients want to read the details of errors, too, which no service imports.
  const files = withImports([...services.map(({ file }) => file), file_grpc_health_v1_health, file_google_rpc_error_details]);
  const fileDescriptorProtos = files.map(({ proto }) => Buffer.from(toBinary(FileDescriptorProtoSchema, proto)));
  // The library reads nothing but the descriptors of a definition, whichever it is.
  new ReflectionService({ ordertrail: { format: "Protocol Buffer 3 DescriptorProto", type: {}, fileDescriptorProtos } }).addToServer(
    server,
  );
}

function withImports(roots: readonly DescFile[]): DescFile[] {
  const files = new Set<DescFile>();
  const add = (file: DescFile) => {
    if (files.has(file)) return;
    files.add(file);
    file.dependencies.forEach(add);
  };
  roots.forEach(add);
  return [...files];
}
