import { type DescFile, type DescService, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import type { Server } from "@grpc/grpc-js";
import { ReflectionService } from "@grpc/reflection";

/** Lets clients without our protos (grpcurl, say) ask for them: server reflection, v1 and v1alpha, for these services. */
export function addReflection(server: Pick<Server, "addService">, services: readonly DescService[]): void {
  const fileDescriptorProtos = [...filesOf(services)].map(({ proto }) => Buffer.from(toBinary(FileDescriptorProtoSchema, proto)));
  // The library reads nothing but the descriptors of a definition, whichever it is.
  new ReflectionService({ ordertrail: { format: "Protocol Buffer 3 DescriptorProto", type: {}, fileDescriptorProtos } }).addToServer(server);
}

/** The services' files and all that they import. */
function filesOf(services: readonly DescService[]): ReadonlySet<DescFile> {
  const files = new Set<DescFile>();
  const add = (file: DescFile) => {
    if (files.has(file)) return;
    files.add(file);
    file.dependencies.forEach(add);
  };
  for (const { file } of services) add(file);
  return files;
}
