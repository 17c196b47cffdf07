// The message box. What was typed stays here until the server has stored it, and survives a reload.

const TEMPORARY = "ingle.temporary"; // set while this tab shows a temporary chat

export default {
  props: {
    writing: Boolean,
    note: { type: String, default: "" },
    place: { type: String, default: null }, // of the draft; null = a temporary chat, whose draft is not stored
    begun: Boolean,
  },
  emits: ["send", "stop", "last", "lost"],
  template: `
    <div class="composer">
      <p class="note" role="status" aria-live="polite">{{ trouble || note }}</p>
      <form @submit.prevent="send" @click.self="focus">
        <textarea ref="box" v-model="text" rows="1" aria-label="Your message" dir="auto" placeholder="Ask anything …" enterkeyhint="enter"
                  autocomplete="off" @keydown="key" @input="changed"></textarea>
        <button v-if="writing" class="round" type="button" aria-label="Stop" title="Stop (Esc)" @click="$emit('stop')">
          <svg class="i" aria-hidden="true"><use href="#i-stop"></use></svg>
        </button>
        <button v-else class="round" aria-label="Send" title="Send (Enter)" :disabled="!text.trim() || busy">
          <svg class="i" aria-hidden="true"><use href="#i-send"></use></svg>
        </button>
      </form>
    </div>`,
  data: () => ({ text: "", trouble: "", busy: false }),
  watch: {
    begun: "mark",
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
      if (!this.text.trim() || this.writing || this.busy) return;
      if (!window.socket?.connected) {
        this.trouble = "Ingle can't be reached right now. Your message stays here.";
        return;
      }
      [this.busy, this.sent, this.from] = [true, this.text, this.place];
      this.$emit("send", this.text);
      setTimeout(() => (this.busy = false), 10000);
    },
    taken(text) {
      if (this.sent === text) {
        if (this.from !== null) sessionStorage.removeItem(`ingle.draft.${this.from}`);
        this.beginning = this.from === "" && this.place === "";
        this.text = this.text.startsWith(text) ? this.text.slice(text.length) : "";
      } else {
        this.beginning = this.place === ""; // a sample: what was half typed stays
      }
      [this.busy, this.sent] = [false, undefined];
      this.$nextTick(this.changed);
    },
    drop() {
      this.text = "";
    },
    refused() {
      this.busy = false;
    },
    focus() {
      this.$refs.box.focus();
    },
  },
};
