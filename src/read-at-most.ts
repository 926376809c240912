/** Reads a stream of bytes to its end. Throws an Error when there are more than `maxBytes`; the rest is not read. */
export async function readAtMost(chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>, maxBytes: number): Promise<Buffer> {
  const read: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of chunks) {
    length += chunk.length;
    // Leaving the loop ends the stream.
    if (length > maxBytes) throw new Error(`the answer is larger than ${maxBytes} bytes`);
    read.push(chunk);
  }
  return Buffer.concat(read);
}
