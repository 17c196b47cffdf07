// The message box. What was typed stays here until the server has stored it, and survives a reload. Pictures come by the button, by
// pasting and by dropping; they are made small here, because the way to the server takes a megabyte at a time.

const [MOST, SIDE, BYTES] = [4, 1024, 150_000]; // pictures of a message, pixels of a longer side, and bytes of each
const HOLD_MS = 300; // who presses the microphone for longer says one thing
const TEMPORARY = "ingle.temporary"; // set while this tab shows a temporary chat

// A picture as a data: URL of at most BYTES bytes, upright, on white.
async function small(file) {
  const whole = await createImageBitmap(file);
  for (let side = SIDE; ; side *= 0.75) {
    const scale = Math.min(1, side / Math.max(whole.width, whole.height));
    const canvas = Object.assign(document.createElement("canvas"), {
      width: Math.max(1, Math.round(whole.width * scale)), height: Math.max(1, Math.round(whole.height * scale)),
    });
    const draw = canvas.getContext("2d");
    draw.fillStyle = "#fff";
    draw.fillRect(0, 0, canvas.width, canvas.height);
    draw.imageSmoothingQuality = "high";
    draw.drawImage(whole, 0, 0, canvas.width, canvas.height);
    for (const [type, quality] of [["image/png"], ["image/jpeg", 0.92], ["image/jpeg", 0.8]]) {
      const url = canvas.toDataURL(type, quality);
      if (url.length * 0.75 <= BYTES) return url;
    }
  }
}

export default {
  props: {
    writing: Boolean,
    note: { type: String, default: "" },
    place: { type: String, default: null }, // of the draft; null = a temporary chat, whose draft is not stored
    begun: Boolean,
    lacks: { type: Object, default: () => ({}) }, // abilities that are missing: by name, why they can't be had ("" = they can)
    offer: { type: Object, default: null }, // what this home could get; its state: offered, running, came (a model), done, none
  },
  emits: ["send", "stop", "last", "lost", "want", "bring", "halt", "leave", "go_on"],
  template: `
    <div class="composer">
      <p class="note" role="status" aria-live="polite">{{ trouble || note }}</p>
      <div v-if="offer" class="get" role="group" aria-label="What Ingle could get">
        <p role="status" aria-live="polite">{{ offer.text }}</p>
        <progress v-if="offer.state === 'running'" :max="offer.total || 1" :value="offer.total ? offer.done : null" aria-label="How far it is"></progress>
        <button v-if="offer.state === 'offered'" class="main" type="button" @click="$emit('bring')">Get it</button>
        <button v-if="offer.state === 'came'" class="main" type="button" @click="$emit('go_on')">Use it here</button>
        <button v-if="offer.state === 'running'" type="button" @click="$emit('halt')">Stop</button>
        <button v-else type="button" @click="$emit('leave')">{{ offer.state === "offered" ? "Not now" : "Close" }}</button>
      </div>
      <ul v-if="pictures.length" class="pictures" aria-label="Pictures to send">
        <li v-for="(picture, at) in pictures" :key="picture">
          <img :src="picture" :alt="'Picture ' + (at + 1)">
          <button type="button" :aria-label="'Remove picture ' + (at + 1)" @click="pictures.splice(at, 1)"><svg class="i" aria-hidden="true"><use href="#i-close"></use></svg></button>
        </li>
      </ul>
      <form :class="{ over }" @submit.prevent="send" @click.self="focus" @paste="paste" @dragover.prevent="over = true" @dragleave="over = false" @drop.prevent="dropped">
        <input ref="file" type="file" accept="image/*" multiple hidden aria-label="Pictures" @change="picked">
        <button class="quiet add" type="button" aria-label="Add a picture" :title="lacks.see || 'Add a picture'" :class="{ missing: lacks.see }" @click="choose">
          <svg class="i" aria-hidden="true"><use href="#i-picture"></use></svg>
        </button>
        <textarea ref="box" v-model="text" rows="1" aria-label="Your message" dir="auto" :placeholder="hint" enterkeyhint="enter"
                  autocomplete="off" @keydown="key" @input="changed"></textarea>
        <button class="quiet mic" type="button" :class="{ on: hears, missing: lacks.hear }" :aria-pressed="hears ? 'true' : 'false'" aria-label="Talk"
                :title="lacks.hear || 'Talk (hold to say one thing)'"
                @pointerdown="press" @pointerup="release" @pointerleave="release" @contextmenu.prevent @click="talk">
          <svg class="i" aria-hidden="true"><use href="#i-microphone"></use></svg>
        </button>
        <button v-if="writing" class="round" type="button" aria-label="Stop" title="Stop (Esc)" @click="$emit('stop')">
          <svg class="i" aria-hidden="true"><use href="#i-stop"></use></svg>
        </button>
        <button v-else class="round" aria-label="Send" title="Send (Enter)" :disabled="!(text.trim() || pictures.length) || busy">
          <svg class="i" aria-hidden="true"><use href="#i-send"></use></svg>
        </button>
      </form>
    </div>`,
  // hears: "" = the microphone is off; free = turn by turn; once = while the button is held
  data: () => ({ text: "", pictures: [], over: false, trouble: "", busy: false, hears: "", partial: "", spoken: "" }),
  computed: {
    hint() {
      return this.partial || (this.hears ? "Listening …" : "Ask anything …");
    },
  },
  watch: {
    begun: "mark",
    writing: "say",
    place(now, before) {
      this.mark();
      if ((now === null && before === "") || (now === "" && before === null)) {
        // Only whether it is kept has changed: what was typed stays, and is stored where it may be.
        if (now === null) sessionStorage.removeItem("ingle.draft.");
        return void (this.text ? this.changed() : this.load());
      }
      if (!this.beginning || before !== "") return void this.load();
      // The conversation that began here: what was typed since goes on in it.
      this.beginning = false;
      sessionStorage.removeItem("ingle.draft.");
      this.changed();
    },
  },
  mounted() {
    this.load();
    // The page was reloaded during a temporary chat.
    if (sessionStorage.getItem(TEMPORARY) && this.place === "") this.$emit("lost");
    else this.mark();
    if (matchMedia("(pointer: fine)").matches) this.focus();
    addEventListener("ingle-voice", this.voice);
  },
  unmounted() {
    removeEventListener("ingle-voice", this.voice);
  },
  methods: {
    draft() {
      return this.place === null ? null : `ingle.draft.${this.place}`;
    },
    load() {
      if (this.busy) return; // this very text is beginning the conversation
      const draft = this.draft();
      this.text = (draft && sessionStorage.getItem(draft)) || "";
      this.$nextTick(this.size);
    },
    changed() {
      const draft = this.draft();
      if (draft && this.text) sessionStorage.setItem(draft, this.text);
      else if (draft) sessionStorage.removeItem(draft);
      this.trouble = "";
      this.size();
    },
    size() {
      const box = this.$refs.box;
      box.style.height = "auto";
      box.style.height = box.scrollHeight + 2 + "px";
    },
    mark() {
      if (this.place === null && this.begun) sessionStorage.setItem(TEMPORARY, "1");
      else if (this.place !== null) sessionStorage.removeItem(TEMPORARY);
    },
    key(event) {
      if (event.isComposing || event.keyCode === 229) return; // Safari ends the composition before it says which key did
      const touch = matchMedia("(pointer: coarse)").matches;
      if (event.key === "Enter" && !event.shiftKey && !touch) {
        event.preventDefault();
        this.send();
      } else if (event.key === "ArrowUp" && !this.text) {
        event.preventDefault();
        this.$emit("last");
      }
    },
    send() {
      if (!(this.text.trim() || this.pictures.length) || this.writing || this.busy) return;
      if (!window.socket?.connected) {
        this.trouble = "Ingle can't be reached right now. Your message stays here.";
        return;
      }
      [this.busy, this.sent, this.from] = [true, this.text, this.place];
      this.$emit("send", { text: this.text, pictures: [...this.pictures], aloud: this.answered ? window.ingleVoice.tab : null });
      setTimeout(() => (this.busy = false), 10000);
    },
    // Talking: a click begins and ends it; who holds the button says one thing.
    press() {
      if (!this.hears && this.lacks.hear === undefined) this.held = setTimeout(() => ((this.held = null), this.listen(true)), HOLD_MS);
    },
    release({ type }) {
      clearTimeout(this.held);
      if (this.hears !== "once") return;
      window.ingleVoice.commit();
      this.released = type === "pointerup"; // the click that follows is none
    },
    talk() {
      if (this.lacks.hear !== undefined) return void this.$emit("want", "hear");
      if (this.released) return void (this.released = false);
      if (this.hears) window.ingleVoice.deaf();
      else this.listen(false);
    },
    async listen(once) {
      [this.trouble, this.hears] = ["", once ? "once" : "free"];
      try {
        await window.ingleVoice.listen(once);
      } catch (error) {
        window.ingleVoice.deaf();
        this.trouble = error.name === "NotAllowedError" ? "This browser was not allowed to use the microphone." : error.message;
      }
    },
    voice({ detail: { type, text, wants } }) {
      if (type === "deaf") [this.hears, this.partial] = ["", ""];
      if (type === "began") this.partial = "…";
      if (type === "partial") this.partial = text;
      if (type === "trouble") {
        if (wants) this.$emit("want", wants);
        else this.trouble = text;
        window.ingleVoice.deaf();
      }
      if (type !== "said") return;
      this.partial = "";
      this.spoken = text ? `${this.spoken} ${text}`.trim() : this.spoken;
      this.say();
    },
    say() {
      // What was said waits until the answer before it has ended.
      if (!this.spoken || this.writing || this.busy) return;
      this.text = `${this.text} ${this.spoken}`.trim();
      [this.spoken, this.answered] = ["", true];
      this.send();
      this.answered = false;
    },
    taken(text) {
      if (this.sent === text) {
        if (this.from !== null) sessionStorage.removeItem(`ingle.draft.${this.from}`);
        this.beginning = this.from === "" && this.place === "";
        this.text = this.text.startsWith(text) ? this.text.slice(text.length) : "";
        this.pictures = [];
      } else {
        this.beginning = this.place === ""; // a sample: what was half typed stays
      }
      [this.busy, this.sent] = [false, undefined];
      this.$nextTick(this.changed);
    },
    drop() {
      [this.text, this.pictures] = ["", []];
    },
    choose() {
      if (this.lacks.see !== undefined) this.$emit("want", "see");
      else this.$refs.file.click();
    },
    picked(event) {
      this.add([...event.target.files]);
      event.target.value = "";
    },
    paste(event) {
      const files = [...event.clipboardData.files].filter((file) => file.type.startsWith("image/"));
      if (!files.length) return;
      event.preventDefault();
      this.add(files);
    },
    dropped(event) {
      this.over = false;
      this.add([...event.dataTransfer.files]);
    },
    async add(files) {
      this.trouble = "";
      for (const file of files) {
        if (this.pictures.length >= MOST) return void (this.trouble = `A message takes ${MOST} pictures at most.`);
        try {
          this.pictures.push(await small(file));
        } catch {
          this.trouble = `“${file.name}” is no picture that this browser can read.`;
        }
      }
      this.focus();
    },
    refused() {
      this.busy = false;
    },
    focus() {
      this.$refs.box.focus();
    },
  },
};
