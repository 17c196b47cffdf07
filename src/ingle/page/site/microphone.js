// Makes 24,000 samples a second, 16 bits each, of whatever the microphone gives, in pieces of a twentieth of a second.

const [RATE, PIECE] = [24000, 1200];

registerProcessor("microphone", class extends AudioWorkletProcessor {
  constructor() {
    super();
    [this.piece, this.filled, this.sum, this.count, this.due] = [new Int16Array(PIECE), 0, 0, 0, 0];
  }

  process([[channel]]) {
    for (const sample of channel ?? []) {
      // Each sample out is the mean of those that it stands for.
      [this.sum, this.count, this.due] = [this.sum + sample, this.count + 1, this.due + RATE / sampleRate];
      for (; this.due >= 1; this.due -= 1) this.add(this.sum / this.count);
      if (this.due < RATE / sampleRate) [this.sum, this.count] = [0, 0];
    }
    return true;
  }

  add(sample) {
    this.piece[this.filled++] = Math.max(-1, Math.min(1, sample || 0)) * 32767;
    if (this.filled < PIECE) return;
    this.port.postMessage(this.piece.buffer, [this.piece.buffer]);
    [this.piece, this.filled] = [new Int16Array(PIECE), 0];
  }
});
