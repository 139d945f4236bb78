// What the cards say, in the languages of the pack. {0}, {1} are filled in.
import { app } from "./comfy.mjs";

/** @type {Record<string, Record<string, string>>} */
export const WORDS = {
  en: {
    rank: "rank", full: "full matrices", alpha: "alpha", size: "size", modules: "modules",
    trigger: "trigger words", tags: "frequent tags", author: "author", resolution: "resolution", steps: "steps",
    epochs: "epochs", date: "date", unknown_model: "unknown model", no_adapter: "no adapter",
    unrecognised: "{0} keys are not recognised", set_aside: "left out: {0}",
    matched: "{0} of {1} modules matched", stock: "{0} weights by ComfyUI's own adapters", left_out: "{0} left out",
    compared: "compared", merged: "merged", nothing_applied: "nothing is applied", while_sampling: "while sampling",
    missing: "not in the model", shape: "the model's weight is {0}, the adapter's {1}",
    unknown: "belongs to no adapter that is known", more: "and {0} more", cell: "{0} {1}: {2} of {3} modules",
    other: "other", report: "report", unreachable: "the server does not answer",
    step: "step", loss: "loss", validation: "validation", learning_rate: "learning rate", left: "left",
    more_input: "1 more input", more_inputs: "{0} more inputs", fewer_inputs: "fewer inputs",
    smoothing: "smoothing", waiting: "The loss appears here once training runs.",
    unsampled: "No sample at step {0}: {1}",
    needs: "needs about {0} GB: weights {1}, activations {2}, adapter {3}", free: "free {0} GB",
    swapped: "{0} of {1} blocks are swapped",
    waits: "the idle model waits in the computer's memory",
    load_rest: "Apply what fits", leave_out: "Leave these out", set: "{0}: {1}", switch_on: "Switch {0} on",
    switch_off: "Switch {0} off", changed: "Changed since then: run again.",
    mean_of: "mean of the last {0} steps", file: "file", state: "state", folder: "folder", saved_at: "saved at step",
    finished: "Finished: {0} steps", stopped: "Stopped after step {0} of {1}", failed: "Failed after step {0} of {1}",
    nothing_saved: "Nothing was saved.", go_on: "Go on from step {0}",
    resume_set: "resume is set to this state: press Run to go on.",
    resume_linked: "resume is linked to another node: choose {0} there.",
    raise: "To train further, raise {0} above {1} first.", other_values: "Changed since: {0}",
    switch: "on or off", all_rows: "all", choose: "choose a file", strength: "strength", details: "what it is",
    linked: "from a link", more_of_row: "more", copy: "copy", copied: "copied", copy_words: "Copy trigger words",
    move_up: "Move up", move_down: "Move down", remove: "Remove", show_inputs: "Show inputs to link", hide_inputs: "Hide inputs",
    choose_folder: "Choose a folder: what is in it is shown here.", images: "{0} images", videos: "{0} videos",
    all_captioned: "all have captions", too_short: "{0} videos are shorter than every target_frames",
    size_of_video: "{0} × {1}, {2} frames",
    save_copy: "Save a copy for stock loaders", saving: "saving…", copy_there: "Copy for stock loaders: {0}",
    lora_instead: "What comes in as lora is loaded instead of a file.", move_row: "drag, or Alt and ↑ ↓, to move",
  },
  ja: {
    rank: "ランク", full: "フル行列", alpha: "alpha", size: "サイズ", modules: "モジュール",
    trigger: "トリガーワード", tags: "頻出タグ", author: "作者", resolution: "解像度", steps: "ステップ",
    epochs: "エポック", date: "日付", unknown_model: "不明なモデル", no_adapter: "アダプターではありません",
    unrecognised: "{0} 個のキーを認識できません", set_aside: "適用外: {0}",
    matched: "{1} モジュール中 {0} が一致", stock: "{0} 個の重みは ComfyUI 標準のアダプターで適用",
    left_out: "{0} 個は適用外", compared: "比較のみ", merged: "マージ済み", nothing_applied: "適用なし",
    while_sampling: "サンプリング中に適用", missing: "モデルにありません", shape: "モデルの重みは {0}、アダプターは {1}",
    unknown: "既知のアダプターのキーではありません", more: "ほか {0} 個", cell: "{0} {1}: {3} モジュール中 {2}",
    other: "その他", report: "レポート", unreachable: "サーバーが応答しません",
    step: "ステップ", loss: "損失", validation: "検証", learning_rate: "学習率", left: "残り",
    more_input: "ほかの入力 1 個", more_inputs: "ほかの入力 {0} 個", fewer_inputs: "入力を減らす",
    smoothing: "平滑化", waiting: "学習を実行すると、ここに損失が表示されます。",
    unsampled: "ステップ {0} のサンプルはできませんでした: {1}",
    needs: "必要なメモリ 約 {0} GB: 重み {1}、活性化 {2}、アダプター {3}", free: "空き {0} GB",
    swapped: "{1} ブロック中 {0} を入れ替え",
    waits: "計算していないモデルは PC のメモリで待機",
    load_rest: "合うものだけ適用", leave_out: "これらを除外", set: "{0}: {1}", switch_on: "{0} をオン",
    switch_off: "{0} をオフ", changed: "その後に変更されました。もう一度実行してください。",
    mean_of: "直近 {0} ステップの平均", file: "ファイル", state: "状態", folder: "フォルダー", saved_at: "保存したステップ",
    finished: "完了: {0} ステップ", stopped: "{1} ステップ中 {0} で停止", failed: "{1} ステップ中 {0} の後でエラー",
    nothing_saved: "何も保存されていません。", go_on: "ステップ {0} から続ける",
    resume_set: "resume にこの状態を設定しました。実行すると続きから始まります。",
    resume_linked: "resume は別のノードにつながっています。そこで {0} を選んでください。",
    raise: "さらに学習するには、先に {0} を {1} より大きくしてください。", other_values: "その後の変更: {0}",
    switch: "オン／オフ", all_rows: "すべて", choose: "ファイルを選ぶ", strength: "強度", details: "ファイルの内容",
    linked: "リンクから", more_of_row: "その他", copy: "コピー", copied: "コピーしました",
    copy_words: "トリガーワードをコピー", move_up: "上へ移動", move_down: "下へ移動", remove: "削除",
    show_inputs: "リンク用の入力を表示", hide_inputs: "入力を隠す",
    choose_folder: "フォルダーを選ぶと、ここに内容が表示されます。", images: "画像 {0} 枚", videos: "動画 {0} 本",
    all_captioned: "すべてキャプションあり", too_short: "動画 {0} 本はどの target_frames よりも短い",
    size_of_video: "{0} × {1}、{2} フレーム",
    save_copy: "標準ローダー用のコピーを保存", saving: "保存中…", copy_there: "標準ローダー用のコピー: {0}",
    lora_instead: "ファイルの代わりに lora 入力を読み込みます。", move_row: "ドラッグ、または Alt と ↑ ↓ で移動",
  },
  zh: {
    rank: "秩", full: "完整矩阵", alpha: "alpha", size: "大小", modules: "模块",
    trigger: "触发词", tags: "常见标签", author: "作者", resolution: "分辨率", steps: "步数",
    epochs: "轮数", date: "日期", unknown_model: "未知模型", no_adapter: "不是适配器",
    unrecognised: "{0} 个键无法识别", set_aside: "未应用：{0}",
    matched: "{1} 个模块中匹配 {0} 个", stock: "{0} 个权重由 ComfyUI 自带适配器处理", left_out: "{0} 个未应用",
    compared: "仅比较", merged: "已合并", nothing_applied: "未应用", while_sampling: "采样时应用",
    missing: "模型中没有", shape: "模型权重为 {0}，适配器为 {1}", unknown: "不属于任何已知的适配器",
    more: "另有 {0} 个", cell: "{0} {1}：{3} 个模块中 {2} 个", other: "其他", report: "报告",
    more_input: "另有 1 个输入", more_inputs: "另有 {0} 个输入", fewer_inputs: "收起输入", unreachable: "服务器没有响应",
    step: "步", loss: "损失", validation: "验证",
    learning_rate: "学习率", left: "剩余", smoothing: "平滑", waiting: "训练开始后，损失会显示在这里。",
    unsampled: "第 {0} 步没有生成样图：{1}",
    needs: "约需 {0} GB：权重 {1}，激活 {2}，适配器 {3}", free: "可用 {0} GB", swapped: "{1} 个块中交换 {0} 个",
    waits: "空闲的模型在内存中等待",
    load_rest: "只应用匹配的部分", leave_out: "排除这些", set: "{0}：{1}", switch_on: "打开 {0}",
    switch_off: "关闭 {0}", changed: "之后已修改：请重新运行。",
    mean_of: "最近 {0} 步的平均值", file: "文件", state: "状态", folder: "文件夹", saved_at: "保存于第几步",
    finished: "已完成：{0} 步", stopped: "已在第 {0} 步停止（共 {1} 步）", failed: "第 {0} 步之后出错（共 {1} 步）",
    nothing_saved: "没有保存任何文件。", go_on: "从第 {0} 步继续",
    resume_set: "resume 已设为此状态：运行即可继续训练。", resume_linked: "resume 连接到其他节点：请在那里选择 {0}。",
    raise: "要继续训练，请先将 {0} 调到大于 {1}。", other_values: "此后已更改：{0}",
    switch: "开／关", all_rows: "全部", choose: "选择文件", strength: "强度", details: "文件内容", linked: "来自连线",
    more_of_row: "更多", copy: "复制", copied: "已复制", copy_words: "复制触发词",
    move_up: "上移", move_down: "下移", remove: "移除",
    show_inputs: "显示可连线的输入", hide_inputs: "隐藏输入",
    choose_folder: "选择文件夹后，这里会显示其中的内容。", images: "{0} 张图像", videos: "{0} 个视频",
    all_captioned: "全部有标注", too_short: "{0} 个视频短于所有 target_frames", size_of_video: "{0} × {1}，{2} 帧",
    save_copy: "为自带加载器保存副本", saving: "保存中…", copy_there: "自带加载器用的副本：{0}",
    lora_instead: "加载 lora 输入，而不是文件。", move_row: "拖动，或按 Alt 和 ↑ ↓ 移动",
  },
};

/** The person's language: zh for zh-TW too. */
export function locale() {
  return String(app.extensionManager?.setting?.get("Comfy.Locale") ?? "en").split("-")[0];
}

/**
 * The word in the person's language, else in English.
 * @param {string} key
 * @param {...(string | number)} values
 */
export function t(key, ...values) {
  const text = WORDS[locale()]?.[key] ?? WORDS.en[key];
  return text.replace(/\{(\d)\}/g, (_, index) => String(values[Number(index)]));
}
